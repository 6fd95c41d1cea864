"""The next-token loss of a batch and its gradient: in parts, in bfloat16, over processes."""

from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from circuits import distributed, sharded
from circuits.config import check_predicts
from circuits.model import GPT
from circuits.recipe import Recipe


def next_token_loss(model: GPT, rows: Integer[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean loss in nats of predicting rows[:, 1:] from rows[:, :-1], without holding all logits."""
    check_predicts(model.cfg, "the next-token loss")
    rows = rows.long()  # what the losses of torch want of their targets
    resid = model(rows[:, :-1], stop_at_layer=model.cfg.n_layers)
    if torch.is_autocast_enabled(rows.device.type):  # linear_cross_entropy stays in float32 there
        logits = model.unembed(model.ln_final(resid))
        return F.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
    return F.linear_cross_entropy(
        model.ln_final(resid).flatten(0, 1),
        model.unembed.W_U.mT,
        rows[:, 1:].flatten(),
        linear_bias=model.unembed.b_U,
        options=nn.LinearCrossEntropyOptions(),
    )


class _Loss(nn.Module):
    """The loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        return next_token_loss(self.model, rows)


def loss_module(model: GPT, recipe: Recipe, *, shard: bool = False) -> nn.Module:
    """rows -> their loss, compiled and shared between processes as the recipe and the group say;
    with `shard` each process keeps only its part of the weights."""
    loss = _Loss(model)
    if shard:
        sharded.shard(loss, model)
    module: Any = torch.compile(loss) if recipe.compile else loss
    if shard or distributed.world() == 1:
        return module
    # With 0 layers shortformer positions take no part in the loss, and have no gradient.
    unused = model.cfg.n_layers == 0
    return DistributedDataParallel(
        module, forward_sync_buffers=False, find_unused_parameters=unused
    )


def backward(
    loss_of: nn.Module, rows: Integer[Tensor, "batch pos"], recipe: Recipe
) -> Float[Tensor, ""]:
    """The mean loss of all rows of all processes; its gradient is left in the parameters."""
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
