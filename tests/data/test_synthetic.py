"""The law of each synthetic process, on what its generator draws."""

import numpy as np
import pytest
import torch

from circuits.data import (
    Batches,
    BigramTriggers,
    CategoryLines,
    CausalGraph,
    MarkovChains,
    RepeatedTokens,
    chain_parents,
    pair_parents,
    random_parents,
    repeated_tokens,
)

TEXT = torch.from_numpy(np.random.default_rng(0).choice(7, 5000, p=np.arange(1, 8) / 28))
TEXT[::9] = 0  # so that bigrams differ from unigrams


def bigrams(**options):
    return BigramTriggers(TEXT, 8, **{"length": 60, "triggers": 3, **options})


EVERY = {
    "repeated": lambda seed: RepeatedTokens(29, shortest=5, longest=9, seed=seed),
    "bigrams": lambda seed: bigrams(seed=seed),
    "chains": lambda seed: MarkovChains(3, order=2, seed=seed),
    "lines": lambda seed: CategoryLines(fixed=0.5, seed=seed),
    "graph": lambda seed: CausalGraph(random_parents(12), seed=seed),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_batch_is_a_function_of_step_and_seed(name):
    make = EVERY[name]
    data = make(1)
    data.batch(0, 4)  # an earlier read must not matter
    assert isinstance(data, Batches)
    assert data.batch(9, 4).equal(make(1).batch(9, 4))
    shapes = data.batch(9, 4).shape, make(2).batch(9, 4).shape
    assert shapes[0] != shapes[1] or not data.batch(9, 4).equal(make(2).batch(9, 4))
    assert data.batch(9, 4).dtype == torch.int64


def test_repeated_tokens_say_the_same_random_row_twice():
    rows = RepeatedTokens(29, shortest=5, longest=9, bos=3).batch(4, 6)
    n = (rows.shape[1] - 1) // 2
    assert 5 <= n <= 9 and (rows[:, 0] == 3).all() and (rows[:, 1:] != 3).all()
    assert rows[:, 1 : 1 + n].equal(rows[:, 1 + n :])
    lengths = {RepeatedTokens(29, shortest=5, longest=9).batch(i, 1).shape[1] for i in range(60)}
    assert lengths == {11, 13, 15, 17, 19}


def test_repeated_tokens_are_uniform_without_bos():
    drawn = repeated_tokens(5, 4000, 1, bos=2, rng=np.random.default_rng(0))[0, 1:]
    counts = drawn.bincount(minlength=5) / len(drawn)
    assert counts[2] == 0 and (counts[[0, 1, 3, 4]] - 0.25).abs().max() < 0.03


def test_a_trigger_is_always_followed_by_its_output():
    data = bigrams(triggers=[2, 5])
    rows = data.batch(0, 50)
    for row in rows:
        for trigger in (2, 5):
            assert len(set(row[1:][row[:-1] == trigger].tolist())) <= 1
    outputs = {row[1:][row[:-1] == 5][0].item() for row in rows if (row[:-1] == 5).any()}
    assert len(outputs) == 8  # uniform over the vocabulary, also over what the text never says


def test_between_triggers_tokens_follow_the_bigrams_of_the_text():
    data = bigrams(triggers=[2, 5], length=200)
    rows = data.batch(0, 300)
    counts = torch.zeros(8, 8)
    counts.index_put_((rows[:, :-1].flatten(), rows[:, 1:].flatten()), torch.ones(()), True)
    free = [token for token in range(7) if token not in (2, 5)]
    seen = counts / counts.sum(-1, keepdim=True)
    assert (seen[free] - torch.from_numpy(data.bigram)[free]).abs().max() < 0.02
    first = bigrams(length=2).batch(0, 4000)[:, 0].bincount(minlength=8) / 4000
    assert (first - torch.from_numpy(data.unigram)).abs().max() < 0.03


def test_answers_mark_what_follows_a_trigger_that_came_before():
    data = bigrams(triggers=[2, 5])
    rows, answers = data.batch(3, 20), data.answers(3, 20)
    for row, known in zip(rows.tolist(), answers.tolist(), strict=True):
        for t in range(len(row)):
            triggered = t > 0 and row[t - 1] in (2, 5) and row[t - 1] in row[: t - 1]
            assert known[t] == triggered
            assert not known[t] or row[t] == row[row.index(row[t - 1]) + 1]


def test_drawn_triggers_are_distinct_and_as_frequent_as_in_the_text():
    known = bigrams(triggers=1, length=400).answers(0, 200).float().mean(1)
    assert (known > 0).float().mean() > 0.9  # frequent tokens come again
    with pytest.raises(ValueError, match="9 triggers out of 7 tokens that occur"):
        bigrams(triggers=9)


@pytest.mark.parametrize("order", [1, 2])
def test_a_markov_chain_moves_as_its_transitions_say(order):
    data = MarkovChains(3, length=6000, order=order)
    rows, chains = data.batch(5, 2), data.transitions(5, 2)
    assert torch.allclose(chains.sum(-1), torch.ones(()).double())
    for row, chain in zip(rows, chains, strict=True):
        context = sum(row[i : len(row) - order + i] * 3 ** (order - 1 - i) for i in range(order))
        counts = torch.zeros(3**order, 3).double()
        counts.index_put_((context, row[order:]), torch.ones(()).double(), accumulate=True)
        visited = counts.sum(-1)
        error = (counts / visited.clamp(min=1)[:, None] - chain).abs().amax(-1)
        assert (error < 4 * 0.5 / visited.clamp(min=1).sqrt()).all()  # four standard errors


def test_a_markov_chain_starts_where_it_stays():
    """Its first token and its hundredth are drawn alike: the start is stationary."""
    rows = MarkovChains(3, length=100, seed=4)
    rows.transitions = lambda step, size: torch.tensor(
        [[[0.1, 0.9, 0.0], [0.0, 0.5, 0.5], [0.3, 0.0, 0.7]]]
    ).double().expand(size, -1, -1)  # fmt: skip
    batch = rows.batch(0, 8000)
    first, last = (batch[:, t].bincount(minlength=3) / 8000 for t in (0, -1))
    assert (first - last).abs().max() < 0.025


def test_doubly_stochastic_chains_use_every_token_alike():
    data = MarkovChains(4, length=50, doubly_stochastic=True)
    chains = data.transitions(0, 20)
    assert torch.allclose(chains.sum(-2), torch.ones(()).double(), atol=1e-6)
    counts = data.batch(0, 4000).flatten().bincount(minlength=4) / 200_000
    assert (counts - 0.25).abs().max() < 0.01


def test_a_child_is_drawn_from_its_parents_token():
    parents = [None, 0, 0, 1, None, 3]
    data = CausalGraph(parents, 4, alpha=0.5)
    rows, chains = data.batch(0, 30_000), data.transitions(0, 30_000)
    every = torch.arange(len(rows))
    for child, parent in enumerate(parents[:-1]):
        if parent is not None:
            told = chains[every, rows[:, parent]]  # what the child is drawn from
            calibration = told[every, rows[:, child]].mean()
            assert torch.isclose(calibration, told.pow(2).sum(-1).mean(), atol=0.01)
            stranger = chains[every, rows[:, (parent + 2) % 3]][every, rows[:, child]].mean()
            assert stranger < calibration - 0.05
    asked, target = rows[:, -2], rows[:, -1]
    assert (asked.bincount(minlength=4) / len(rows) - 0.25).abs().max() < 0.02
    told = chains[every, asked]
    assert torch.isclose(told[every, target].mean(), told.pow(2).sum(-1).mean(), atol=0.01)


def test_chains_of_any_sharpness_have_a_stationary_distribution():
    rows = CausalGraph(chain_parents(20), alpha=0.01).batch(0, 500)
    assert rows.min() >= 0 and rows.max() <= 9


def test_the_graphs_are_what_they_are_called():
    assert chain_parents(4) == [None, 0, 1, 2]
    assert pair_parents(4) == [None, 0, None, 2]
    drawn = random_parents(50)
    assert drawn[0] is None and all(parent < i for i, parent in enumerate(drawn) if i)


def test_a_line_is_told_by_the_kinds_of_its_words_and_by_no_word():
    data = CategoryLines(lines=7, words=9)
    rows, categories = data.batch(3, 40).unflatten(1, (7, 5)), data.categories(3, 40)
    kinds = (rows[..., :2] - data.WORDS) // 9
    assert (2 * kinds[..., 0] + kinds[..., 1] - 2).equal(categories)
    assert (rows[..., 2] == data.COLON).all() and (rows[..., 4] == data.LINE_END).all()
    for row, category in zip(rows, categories, strict=True):
        words, labels = row[:, :2].flatten().tolist(), row[:, 3].tolist()
        assert len(set(words)) == len(words) == 14
        told = set(zip(category.tolist(), labels, strict=True))
        assert len(told) == len(set(category.tolist())) == len(set(labels))  # one to one
    assert rows[..., 3].unique().tolist() == [2, 3, 4, 5]


def test_fixed_lines_have_the_labels_of_their_categories():
    data = CategoryLines(fixed=1.0)
    assert (data.batch(0, 9)[:, 3::5] - data.LABELS).equal(data.categories(0, 9))
    with pytest.raises(ValueError, match="lines must be 1 to words=8, got 9"):
        CategoryLines(lines=9)
    with pytest.raises(ValueError, match=r"fixed must be a share of the rows, .* got 2\.0"):
        CategoryLines(fixed=2.0)
