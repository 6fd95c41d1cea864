"""What an intervention is judged by: logits [batch d_vocab] -> one number for each example.

Each function here makes such a metric from what is right in each example. A metric of your own may
as well give one number for the batch: then results have one value an experiment, and no interval.
For logits of all
positions [batch pos d_vocab] it takes the last one, but for `mean_loss`, which takes them all: pass
`at` to a sweep for another.
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
    """Logit of the right token less that of the wrong one."""
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
    """`mean_loss` of all tokens; ValueError for a model whose logits are of something else."""
    check_predicts(model.cfg, "the next-token loss")
    return mean_loss(tokens)


def mean_loss(tokens: Int[Tensor, "batch pos"], first: int = 1) -> Metric:
    """Mean -log p, in nats, of the tokens from index `first` on, each given those before it: of
    logits of all positions. ValueError for a `first` that leaves nothing to predict, and for logits
    of other positions."""
    if not 1 <= first < tokens.shape[1]:
        raise ValueError(f"of {tokens.shape[1]} tokens those from 1 on are predicted, got {first=}")
    most = _largest(tokens[:, first:])

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        if logits.shape[:-1] != tokens.shape:
            raise ValueError(f"the loss of {list(tokens.shape)} tokens wants all their logits, "
                             f"got {list(logits.shape)}; it takes no `at`")  # fmt: skip
        _check(logits, most)
        targets = tokens[:, first:].long().to(logits.device)
        predicted = at_least_single(logits[:, first - 1 : -1])
        losses = F.cross_entropy(predicted.mT, targets, reduction="none")
        return losses.mean(-1)

    return metric


def in_context_score(tokens: Int[Tensor, "batch pos"]) -> Metric:
    """The loss late in the context less the loss early in it, in nats, of logits of all positions:
    see analyses.in_context.score, which says where it looks. Pass at=None to a Task."""
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
    """KL(reference || here) in nats, of the distributions that the logits stand for."""
    expected = at_least_single(reference).log_softmax(-1)

    def metric(logits: Logits) -> Float[Tensor, " batch"]:
        here, there = _last(logits).log_softmax(-1), expected.to(logits.device)
        return (there.exp() * (there - here)).sum(-1)

    return metric


def _largest(*tokens: Int[Tensor, "..."]) -> int:
    """The largest of some tokens, to be looked for among logits; ValueError for negative ones."""
    low, high = torch.cat([one.flatten().cpu() for one in tokens]).aminmax()
    if low < 0:
        raise ValueError(f"tokens are counted from 0, got {int(low)}")
    return int(high)


def _check(logits: Logits, largest: int) -> None:
    if largest >= logits.shape[-1]:
        raise ValueError(f"the metric is of token {largest}, and there are logits of tokens 0 to "
                         f"{logits.shape[-1] - 1}")  # fmt: skip


def _last(logits: Logits, largest: int = 0) -> Float[Tensor, "batch d_vocab"]:
    """Logits at the last position; ValueError if there are none of the largest token."""
    _check(logits, largest)
    return at_least_single(logits if logits.ndim == 2 else logits[:, -1])


def _of(values: Float[Tensor, "batch d_vocab"], tokens: Tokens) -> Float[Tensor, " batch"]:
    every = torch.arange(len(values), device=values.device)
    return values[every, tokens.to(values.device)]
