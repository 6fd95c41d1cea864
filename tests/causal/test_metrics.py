"""Metrics are what they are called."""

import pytest
import torch

from analyses import Task, ablation, in_context, metrics
from tests.causal.by_hand import METRIC, RIGHT, TOKENS, WRONG
from tests.conftest import tiny, tiny_tokens


def test_metrics_are_what_they_are_called():
    logits = torch.randn(4, 6, 29, dtype=torch.float64)
    last, every = logits[:, -1], torch.arange(4)
    log_p = last.log_softmax(-1)
    for metric, expected in [
        (METRIC, last[every, RIGHT] - last[every, WRONG]),
        (metrics.loss(RIGHT), -log_p[every, RIGHT]),
        (metrics.probability(RIGHT), log_p.exp()[every, RIGHT]),
        (metrics.divergence(logits[:, 0]),
         (logits[:, 0].softmax(-1) * (logits[:, 0].log_softmax(-1) - log_p)).sum(-1)),
    ]:  # fmt: skip
        assert torch.allclose(metric(logits), expected) and metric(last).equal(metric(logits))
    assert torch.allclose(metrics.divergence(last)(last), torch.zeros(4).double(), atol=1e-12)


def test_the_in_context_score_as_a_metric_is_that_of_the_analysis():
    model, tokens = tiny(n_ctx=64), tiny_tokens(batch=4, pos=60)
    with torch.no_grad():
        values = metrics.in_context_score(tokens)(model(tokens))
    score = in_context.score(in_context.loss_by_index(model, tokens))
    assert float(values.mean()) == pytest.approx(float(score), abs=1e-6)


def test_the_mean_loss_is_that_of_the_tokens_from_an_index_on():
    model = tiny()
    with torch.no_grad():
        logits = model(TOKENS)
        expected = model(TOKENS, return_type="loss", loss_per_token=True)[:, 2:].mean(-1)
    assert torch.allclose(metrics.mean_loss(TOKENS, first=3)(logits), expected)
    with pytest.raises(ValueError, match="make the Task with at=None"):
        ablation.ablate(Task(model, TOKENS, metric=metrics.mean_loss(TOKENS), at=-1), "L0H1")
    with pytest.raises(ValueError, match="`first` must be from 1 to 7, got 8"):
        metrics.mean_loss(TOKENS, first=8)
