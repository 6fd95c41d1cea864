"""The toys: predictors against counting by hand, models against their formulas, memories set by
hand against their probes; and no verdict holds of a model that was hardly trained."""

import math
from itertools import pairwise

import pytest
import torch
from xarray import DataArray

from analyses import figures
from analyses.papers.figures.toys.bietti import formation
from analyses.papers.toys import bietti, edelman, nichani, pattern_matching
from analyses.papers.toys.descent import descend
from circuits.data import CategoryLines, CausalGraph, MarkovChains, random_parents


def test_descending_is_gradient_descent_seen_at_its_steps():
    x = torch.tensor([4.0], requires_grad=True)
    opt = torch.optim.SGD([x], lr=0.25)
    run = descend(
        lambda step: x.square().sum(), [opt], 5, lambda: {"x": float(x)}, every=2,
        schedule=lambda step: 1.0 if step < 3 else 0.0,
    )  # fmt: skip
    assert run.step.values.tolist() == [0, 2, 4, 5]
    assert run.sel(what="x").values.tolist() == [4.0, 1.0, 0.5, 0.5]  # halved by each of 3 steps
    with pytest.raises(ValueError, match="got steps=-1"):
        descend(lambda step: x.sum(), [opt], -1, lambda: {"x": 0.0}, every=1)


def test_strategies_count_what_they_say_they_count():
    rows = torch.tensor([[2, 0, 2, 0, 1, 2], [1, 1, 1, 0, 0, 2]])
    for b, row in enumerate(rows.tolist()):
        for t, token in enumerate(row):
            said = torch.tensor([row[: t + 1].count(k) + 1.0 for k in range(3)])
            pairs = list(pairwise(row[: t + 1]))
            followed = torch.tensor([pairs.count((token, k)) + 1.0 for k in range(3)])
            assert torch.allclose(edelman.unigram(rows, 3)[b, t], said / said.sum())
            assert torch.allclose(edelman.bigram(rows, 3)[b, t], followed / followed.sum())
    assert torch.allclose(edelman.uniform(rows, 3), torch.tensor(1 / 3))


def test_strategies_come_nearer_to_the_chain_the_more_they_know():
    far = edelman.strategy_divergences(MarkovChains(3, length=41))
    assert far["bigram"] < 0.6 * far["unigram"] < 0.6 * far["uniform"]
    flat = edelman.strategy_divergences(MarkovChains(3, length=41, doubly_stochastic=True))
    assert flat["unigram"] >= flat["uniform"]  # single tokens tell nothing there


def test_the_minimal_model_is_its_formula_and_counts_bigrams_when_set_to():
    rows = torch.tensor([[2, 0, 2, 0, 1, 2]])
    model = edelman.Minimal(3, 6)
    with torch.no_grad():
        model.v[1] = 50.0
        model.W.copy_(torch.eye(3))
    said = torch.eye(3)[rows]
    # Position 0 has lag 0 alone, and so counts for its own token.
    own = (rows[:, :1] == rows)[..., None] * said[:, :1]
    counts = edelman.bigram(rows, 3)
    counts = counts / counts.amin(-1, keepdim=True) - 1  # every row here has a pair never seen
    assert torch.allclose(model(rows).detach(), counts + own, atol=1e-5)


def test_an_untrained_model_is_as_far_as_the_uniform_predictor():
    data = MarkovChains(3, length=21)
    run = edelman.learn_minimal(edelman.Minimal(3, 20), data, 0)
    assert float(run.sel(what="uniform")[0]) == pytest.approx(0, abs=1e-6)
    far = edelman.strategy_divergences(data)["uniform"]
    assert float(run.sel(what="truth")[0]) == pytest.approx(far, rel=1e-5)


def solved(data, sharpness=40.0):
    """The disentangled model that solves a graph: layer 1 is the graph, layer 2 matches."""
    model, V = nichani.Disentangled(data.d_vocab, len(data.parents)), data.d_vocab
    with torch.no_grad():
        for i, parent in enumerate(data.parents[:-1]):
            if parent is not None:
                model.A1[V + i, V + parent] = sharpness
        model.matching.copy_(sharpness * torch.eye(V))
        model.saying.copy_(sharpness * torch.eye(V))
    return model


def test_the_disentangled_model_set_to_the_graph_says_what_its_children_said():
    data = CausalGraph([None, 0, 0, 1, None], 4)
    model = solved(data)
    found = nichani.parents_found(model, data)
    assert found == {"parents": 1.0, "attention": pytest.approx(1.0)}
    logits = model(torch.tensor([[3, 1, 1, 2, 3], [3, 1, 1, 2, 1]])).detach()
    assert logits.argmax(-1).tolist() == [1, 2]  # 3 is the parent of both 1s, and 1 that of 2
    # Two children, and the root, which hands itself over: 1 is said by two of three.
    assert float(logits[0, 1]) == pytest.approx(40 * 2 / 3, rel=1e-4)


def test_a_zero_model_attends_alike_and_knows_nothing():
    data = CausalGraph(random_parents(8, seed=3), 4)
    model = nichani.Disentangled(4, 8)
    alike = [1 / (i + 1) for i in range(1, 7)]
    assert nichani.parents_found(model, data)["attention"] == pytest.approx(sum(alike) / 6)
    rows = data.batch(0, 512)
    p, bayes = nichani.true_odds(data, 512), nichani.posterior(rows[:, :-1], data)
    told = float(-(p * bayes.log()).sum(-1).mean())
    assert nichani.excess(model, data, batch=512) == pytest.approx(math.log(4) - told, rel=1e-4)
    assert told < math.log(4)


def test_the_posterior_counts_children_of_equals_of_the_last_token():
    data = CausalGraph([None, 0, 0, None, 3, None], 3, alpha=0.5)
    rows = torch.tensor([[1, 0, 2, 1, 0, 1], [1, 0, 2, 2, 0, 2]])
    counted = torch.tensor([[2.5, 0.5, 1.5], [1.5, 0.5, 0.5]])
    assert torch.allclose(nichani.posterior(rows, data), counted / counted.sum(-1, keepdim=True))


def test_memories_are_recalled_when_they_are_written_by_hand():
    data = bietti.triggers(12, 2)
    model = bietti.simplified(data, d_model=256)
    assert all(share == 0 for share in bietti.recall(model, data).values())  # ties are no recall
    first, last = (block.attn for block in model.blocks)
    E, P, U = model.W_E, model.W_pos, model.W_U
    with torch.no_grad():
        w_1 = E @ first.W_V[0] @ first.W_O[0]
        first.W_K[0] = P[:-1].T @ P[1:]  # keys of a position: the position after it
        last.W_K[0] = w_1[data.triggers].T @ E[data.triggers]
        last.W_O[0] = (E @ last.W_V[0]).T @ U.T
    recalled = bietti.recall(model, data)
    assert recalled["W_K2"] == 1 and min(recalled.values()) > 0.9


def test_formation_is_where_a_recall_rises_for_good():
    run = DataArray([0.0, 0.6, 0.2, 0.7, 0.9], dims="step", coords={"step": range(5)})
    assert formation(run) == 3
    assert formation(run[:3]) is None and formation(run[3:]) == 3


def test_lines_are_spelled_as_the_paper_spells_its_own():
    data = pattern_matching.lines(fixed=1.0)
    said = pattern_matching.words(data.batch(0, 1)[0])
    kinds = {word: kind for kind, words in pattern_matching.KINDS.items() for word in words.split()}
    labels = {("month", "animal"): "0", ("month", "fruit"): "1",
              ("colour", "animal"): "2", ("colour", "fruit"): "3"}  # fmt: skip
    for i in range(0, len(said), 5):
        first, second, colon, label, end = said[i : i + 5]
        assert label == labels[kinds[first], kinds[second]] and (colon, end) == (":", "\n")
    assert len(pattern_matching.VOCABULARY) == len(set(pattern_matching.VOCABULARY)) == 38


def test_equal_attention_has_the_share_that_is_called_chance():
    data = CategoryLines(lines=6, words=6)
    model = pattern_matching.transformer(data, n_layers=1)
    with torch.no_grad():
        model.blocks[0].attn.W_Q.zero_()
    score = pattern_matching.category_attention(model, data)
    # Equal attention, averaged before it is divided: later lines weigh more, by a little.
    assert abs(score.values - score.attrs["chance"]).max() < 0.05
    assert (score.looks.values > 0.05).all() and (score.looks.values < 0.25).all()


TRAINED = [name for name in figures.TOYS if name != "circuits/known"]  # which is built


@pytest.mark.parametrize("name", TRAINED)
def test_no_verdict_holds_after_two_steps(name):
    drawing = figures.TOYS[name](steps=2)
    assert not drawing.verdict.holds, drawing.verdict.says
    assert drawing.caption and drawing.title and "https://" in drawing.source
    assert "paper:" in drawing.verdict.says and "here" in drawing.verdict.says


def test_the_minimal_model_finds_the_lag_before_and_beats_single_tokens():
    """A smaller instance that learns in two seconds: contexts of 24."""
    data = MarkovChains(3, length=25)
    model = edelman.Minimal(3, 24)
    run = edelman.learn_minimal(model, data, 300, batch=32, every=300).sel(what="truth")
    assert int(model.v.argmax()) == 1
    assert float(run[-1]) < edelman.strategy_divergences(data)["unigram"] < float(run[0])
