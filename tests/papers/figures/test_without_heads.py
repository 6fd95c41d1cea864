"""A model without some heads on text: it is the model of an ablation task, and an untrained model
loses nothing."""

import numpy as np
import pytest
import torch

from analyses import ablation, metrics
from analyses.causal import Task
from analyses.papers.figures.induction import without_heads
from analyses.papers.figures.induction.tokens import matches
from analyses.prompts import passages
from circuits import load

HEADS = ["L1H1", "L1H3"]


@pytest.fixture(autouse=True)
def few_windows(monkeypatch):
    monkeypatch.setattr(without_heads, "WINDOWS", 12)


def test_the_score_without_heads_is_that_of_a_task():
    model = load("attn-only-2l")
    found = without_heads.score_without(model, HEADS)
    rows = passages.held_out(model)[:12]
    task = Task(model, rows, metric=metrics.in_context_score(rows), at=None)
    expected = ablation.by_kind(task, [HEADS, *HEADS])
    rise = (expected - expected.base).mean("example")
    assert found.set.values.tolist() == ["together", *HEADS]
    np.testing.assert_allclose(found.mean_rise, rise, atol=1e-4)
    np.testing.assert_allclose(found.score, expected.base.mean(), atol=1e-4)
    assert bool((found.low < found.mean_rise).all() and (found.mean_rise < found.high).all())


def test_an_untrained_model_loses_nothing(untrained):
    score = without_heads.score_without(untrained, ["L1H1"])
    repeats = without_heads.rise_on_repeats(untrained, {"L1H1": ["L1H1"]})
    assert max(float(abs(found.mean_rise).max()) for found in (score, repeats)) < 0.02


def test_the_rise_on_repeats_is_that_of_the_ablated_model(monkeypatch):
    model = load("attn-only-2l")
    monkeypatch.setattr(without_heads, "OTHERS", 191)  # all of them
    found = without_heads.rise_on_repeats(model, {"L0H1": ["L0H1"]})
    rows = passages.held_out(model)[:12]
    example, index = torch.ones_like(rows[:, 1:]).nonzero().unbind(-1)
    whole, without = ablation.losses(model, rows, example, index)
    rise = (without[0, 1] - whole).unflatten(-1, rows[:, 1:].shape)
    right = matches(rows)[0]
    on, off = ((rise * kind).sum(-1) / kind.sum(-1) for kind in (right, ~right))
    np.testing.assert_allclose(found.mean_rise[0], (on - off).mean(-1), atol=1e-4)
