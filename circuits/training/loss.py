"""The next-token loss of a batch and its gradient: by micro-batch, in bfloat16, over processes."""

from contextlib import nullcontext
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from circuits import distributed
from circuits.matrices import at_least_single
from circuits.model import GPT, check_predicts
from circuits.training import sharded
from circuits.training.recipe import Recipe

LOGITS = 2**28
"The largest number of logits in memory without the fused loss: 1 GiB in float32."
FUSED = hasattr(F, "linear_cross_entropy")
"Whether torch has the fused loss, as it does from 2.13 on."


def next_token_loss(model: GPT, rows: Integer[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """The mean loss in nats of rows[:, 1:] predicted from rows[:, :-1], without holding all
    logits."""
    check_predicts(model.cfg, "the next-token loss")
    rows = rows.long()  # torch's losses need targets of this type
    resid = model.ln_final(model(rows[:, :-1], stop_at_layer=model.cfg.n_layers))
    # Under autocast linear_cross_entropy would stay in float32.
    if not FUSED or torch.is_autocast_enabled(rows.device.type):
        return _loss_of_logits(model, resid.flatten(0, 1), rows[:, 1:].flatten())
    return F.linear_cross_entropy(
        resid.flatten(0, 1),
        model.unembed.W_U.mT,
        rows[:, 1:].flatten(),
        linear_bias=model.unembed.b_U,
        options=nn.LinearCrossEntropyOptions(),
    )


def _loss_of_logits(
    model: GPT, resid: Float[Tensor, "pos d_model"], targets: Integer[Tensor, " pos"]
) -> Float[Tensor, ""]:
    """The mean loss from logits. If there are more than LOGITS logits, they are computed in pieces,
    and again in the backward pass, to save memory."""

    def summed(part: Tensor, wanted: Tensor) -> Tensor:
        logits = at_least_single(model.unembed(part[None])[0])
        return F.cross_entropy(logits, wanted, reduction="sum")

    each = max(1, LOGITS // model.W_U.shape[1])
    if len(targets) <= each:
        return summed(resid, targets) / len(targets)
    pieces = zip(resid.split(each), targets.split(each), strict=True)
    losses = [checkpoint(summed, *piece, use_reentrant=False) for piece in pieces]
    return torch.stack(losses).sum() / len(targets)


class _Loss(nn.Module):
    """The loss as a module, because DistributedDataParallel wraps modules."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        return next_token_loss(self.model, rows)


def loss_module(model: GPT, recipe: Recipe, *, shard: bool = False) -> nn.Module:
    """A module that maps rows to their loss, compiled if the recipe says so, and wrapped for the
    process group; with `shard` each process keeps only its part of the weights."""
    loss = _Loss(model)
    if shard:
        sharded.shard(loss, model)
    module: Any = torch.compile(loss) if recipe.compile else loss
    if shard or distributed.world() == 1:
        return module
    # With 0 layers no weight reads shortformer positions: they have no gradient.
    unused = model.cfg.n_layers == 0
    return DistributedDataParallel(module, find_unused_parameters=unused, **_BUFFERS_STAY)


_NEW_NAME = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_BUFFERS_STAY: Any = {"forward_sync_buffers" if _NEW_NAME else "broadcast_buffers": False}
"""The option that keeps DistributedDataParallel from sending the buffers, which are constant.
torch 2.13 renamed it."""


def backward(
    loss_of: nn.Module, rows: Integer[Tensor, "batch pos"], recipe: Recipe
) -> Float[Tensor, ""]:
    """The mean loss of all rows of all processes; its gradient is added to the parameters'."""
    losses, parts = [], rows.chunk(recipe.accumulate)
    for part in parts:
        alone = part is not parts[-1] and isinstance(loss_of, DistributedDataParallel)
        half = torch.autocast(rows.device.type, torch.bfloat16, enabled=recipe.bf16)
        with loss_of.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with half:
                loss = loss_of(part) / recipe.accumulate
            loss.backward()
        losses.append(loss.detach().to(torch.promote_types(loss.dtype, torch.float32)))
    return distributed.mean(torch.stack(losses).sum())
