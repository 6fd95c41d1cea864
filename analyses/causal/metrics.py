"""Metrics: functions from logits [batch d_vocab] to one number for each example.

Each function here makes a metric from the right tokens, or from another target for each example. A
metric of your own can also give one number for the batch; then a result has one value for each
experiment, and no interval. From logits of all positions [batch pos d_vocab] these metrics take the
last position. `mean_loss` takes all positions.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from analyses.labelled import Model
from analyses.losses import early_and_late
from circuits.interventions import Metric
from circuits.matrices import at_least_single
from circuits.model import check_predicts

Logits = Float[Tensor, "batch *pos d_vocab"]
Tokens = Int[Tensor, " batch"]


def logit_difference(right: Tokens, wrong: Tokens) -> Metric:
    """The logit of the right token less the logit of the wrong token."""
    most = _largest(right, wrong)

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        last = _last(logits, most)
        return _of(last, right) - _of(last, wrong)

    return metric


def loss(right: Tokens) -> Metric:
    """-log p of the right token, in nats."""
    most = _largest(right)

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        last = _last(logits, most)
        return F.cross_entropy(last, right.to(last.device), reduction="none")

    return metric


def next_token_loss(model: Model, tokens: Int[Tensor, "batch pos"]) -> Metric:
    """`mean_loss` of all tokens. ValueError for a model that does not predict the next token."""
    check_predicts(model.cfg, "the next-token loss")
    return mean_loss(tokens)


def mean_loss(tokens: Int[Tensor, "batch pos"], first: int = 1) -> Metric:
    """The mean -log p, in nats, of the tokens from index `first` on, each given the tokens before
    it. It needs the logits of all positions. ValueError for a `first` that leaves nothing to
    predict, and for logits of another shape."""
    if not 1 <= first < tokens.shape[1]:
        raise ValueError(f"`first` must be from 1 to {tokens.shape[1] - 1}, got {first}")
    most = _largest(tokens[:, first:])

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        if logits.shape[:-1] != tokens.shape:
            raise ValueError(
                f"the loss of {list(tokens.shape)} tokens wants all their logits, got "
                f"{list(logits.shape)}; make the Task with at=None"
            )
        _check(logits, most)
        targets = tokens[:, first:].long().to(logits.device)
        predicted = at_least_single(logits[:, first - 1 : -1])
        losses = F.cross_entropy(predicted.mT, targets, reduction="none")
        return losses.mean(-1)

    return metric


def in_context_score(tokens: Int[Tensor, "batch pos"]) -> Metric:
    """The loss late in the context less the loss early in it, in nats (see
    analyses.in_context.score for the positions). It needs the logits of all positions, so give the
    Task at=None."""
    early, late = early_and_late(tokens.shape[1] - 1)
    targets = tokens[:, 1:].long()

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        predicted = at_least_single(logits[:, :-1])
        loss = F.cross_entropy(predicted.mT, targets.to(logits.device), reduction="none")
        return loss[:, late].mean(-1) - loss[:, early].mean(-1)

    return metric


def probability(right: Tokens) -> Metric:
    """Probability of the right token, in [0, 1]."""
    most = _largest(right)

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        return _of(_last(logits, most).softmax(-1), right)

    return metric


def divergence(reference: Float[Tensor, "batch d_vocab"]) -> Metric:
    """KL(reference || here) in nats, from the distribution of the reference logits to the run's."""
    expected = at_least_single(reference).log_softmax(-1)

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        here, there = _last(logits).log_softmax(-1), expected.to(logits.device)
        return (there.exp() * (there - here)).sum(-1)

    return metric


def _largest(*tokens: Int[Tensor, "..."]) -> int:
    """The largest of some tokens. ValueError for negative tokens."""
    low, high = torch.cat([one.flatten().cpu() for one in tokens]).aminmax()
    if low < 0:
        raise ValueError(f"tokens are counted from 0, got {int(low)}")
    return int(high)


def _check(logits: Logits, largest: int) -> None:
    if largest >= logits.shape[-1]:
        raise ValueError(
            f"the metric is of token {largest}, and there are logits of tokens 0 to "
            f"{logits.shape[-1] - 1}"
        )


def _last(logits: Logits, largest: int = 0) -> Float[Tensor, "batch d_vocab"]:
    """The logits at the last position. ValueError if the largest token has no logit."""
    _check(logits, largest)
    return at_least_single(logits if logits.ndim == 2 else logits[:, -1])


def _of(values: Float[Tensor, "batch d_vocab"], tokens: Tokens) -> Float[Tensor, " batch"]:
    every = torch.arange(len(values), device=values.device)
    return values[every, tokens.to(values.device)]
