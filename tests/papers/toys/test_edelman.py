"""Predictors against counting by hand, and the minimal model against its formula."""

from itertools import pairwise

import pytest
import torch

from analyses.papers.toys import edelman
from circuits.data import MarkovChains


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
    run = edelman.learn(edelman.Minimal(3, 20), data, 0)
    assert float(run.sel(what="uniform")[0]) == pytest.approx(0, abs=1e-6)
    far = edelman.strategy_divergences(data)["uniform"]
    assert float(run.sel(what="truth")[0]) == pytest.approx(far, rel=1e-5)


def test_the_minimal_model_finds_the_lag_before_and_beats_single_tokens():
    """A smaller instance that learns in two seconds: contexts of 24."""
    data = MarkovChains(3, length=25)
    model = edelman.Minimal(3, 24)
    run = edelman.learn(model, data, 300, batch=32, every=300).sel(what="truth")
    assert int(model.v.argmax()) == 1
    assert float(run[-1]) < edelman.strategy_divergences(data)["unigram"] < float(run[0])
