"""One training loop, from a laptop's core to many processes under torchrun.

A step reads a batch, takes the next-token loss at every position, clips the gradient, and moves
along a warm-up and a cosine. Batches are a function of the step and the seed, so a recipe
and its data give the same model on the same machine again, in one piece or in many.

Inside of a process group (circuits.distributed.group) each process takes its share of the rows,
gradients are averaged by torch's DistributedDataParallel, and rank 0 alone evaluates, watches and
writes. The batch is that of the recipe however many processes share it.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from circuits import distributed
from circuits.data import Batches
from circuits.files import replacing
from circuits.model import GPT
from circuits.optimizers import Muon, optimizers, orthogonalised
from circuits.recipe import Recipe
from circuits.snapshots import Progress, Record, Snapshots, restore, state

__all__ = [
    "Muon", "Progress", "Recipe", "Record", "Snapshots", "Watch", "identity", "next_token_loss",
    "optimizers", "orthogonalised", "train", "write_log",
]  # fmt: skip

Watch = Callable[[GPT, Progress], bool | None]
"Sees the model before the first step and after every one; True ends the run there."


def next_token_loss(model: GPT, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean loss in nats of predicting rows[:, 1:] from rows[:, :-1], without holding all logits."""
    resid = model(rows[:, :-1], stop_at_layer=model.cfg.n_layers)
    return F.linear_cross_entropy(
        model.ln_final(resid).flatten(0, 1),
        model.unembed.W_U.mT,
        rows[:, 1:].flatten(),
        linear_bias=model.unembed.b_U,
        options=nn.LinearCrossEntropyOptions(),
    )


def train(
    model: GPT,
    data: Batches,
    recipe: Recipe,
    evaluate: Callable[[GPT], Record] | None = None,
    *,
    snapshots: Snapshots | None = None,
    watch: Watch | None = None,
) -> Iterator[Record]:
    """Train the model in place, yielding a record every `evaluate_every` steps and at the end.

    `loss` is the mean since the record before. If the folder of `snapshots` holds some, the run
    goes on from there: the records so far come first, and all is as if it had never stopped.
    ValueError with the step and the last snapshot if the loss is not finite, and for a folder whose
    run has another recipe, config or data.
    """
    _check_shares(recipe)
    opts = optimizers(model, recipe)
    first, device = distributed.rank() == 0, model.W_E.device
    known = identity(model, data, recipe) if snapshots else {}
    progress = _begun(model, opts, snapshots, known)
    start = time.monotonic() - progress.seconds
    yield from tuple(progress.records)

    def stopped() -> bool:
        says = bool(watch(model, progress)) if watch and first else False
        return bool(distributed.agreed(says, device)) if watch else False

    if stopped():
        return
    for loss, tokens in _steps(model, opts, data, recipe, progress, snapshots):
        progress.step += 1
        progress.tokens += tokens
        progress.losses.append(loss)
        progress.seconds = time.monotonic() - start
        last = progress.step == recipe.steps
        due = last or progress.step % recipe.evaluate_every == 0
        if due:
            measured = evaluate(model) if evaluate and first else {}
            progress.records.append(_record(progress, measured))
        stop = stopped()
        if snapshots and first:
            snapshots.write_weights(model, progress.step)
            if last or stop or progress.step % snapshots.every == 0:
                _snapshot(model, opts, progress, snapshots, known)
        if due:
            yield progress.records[-1]
        if stop:
            return


def identity(model: GPT, data: Batches, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """What a run is: recipe, config and a hash of the first batches; resuming compares it."""
    read = hashlib.sha256()
    for step in (0, 1):
        rows = data.batch(step, recipe.batch_size)
        read.update(repr(list(rows.shape)).encode() + rows.long().contiguous().numpy().tobytes())
    first = {"hash of the first batches": read.hexdigest()[:16]}
    return {"recipe": asdict(recipe), "config": asdict(model.cfg), "data": first}


def _begun(
    model: GPT,
    opts: list[torch.optim.Optimizer],
    snapshots: Snapshots | None,
    known: dict[str, Any],
) -> Progress:
    """Where the run stands: at its last snapshot, or at the first one, of step 0."""
    if snapshots is None:
        return Progress()
    found = snapshots.newest(known)
    tensors, progress = found or ({}, Progress())
    step = distributed.agreed(progress.step if found else -1, model.W_E.device)
    if step != (progress.step if found else -1):
        raise ValueError(
            f"rank {distributed.rank()} does not see the snapshot that rank 0 sees: "
            f"{snapshots.folder} must be one folder that all processes share"
        )
    if found:
        restore(tensors, model, opts)
    elif distributed.rank() == 0:
        snapshots.write_weights(model, 0)
        _snapshot(model, opts, progress, snapshots, known)
    return progress


def _snapshot(
    model: GPT,
    opts: list[torch.optim.Optimizer],
    progress: Progress,
    snapshots: Snapshots,
    known: dict[str, Any],
) -> None:
    try:
        snapshots.write(state(model, opts), progress, known)
    except ValueError as error:
        raise ValueError(f"{error}: lower lr or muon_lr; {snapshots.last()}") from None
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; {snapshots.last()}") from error


def _steps(
    model: GPT,
    opts: list[torch.optim.Optimizer],
    data: Batches,
    recipe: Recipe,
    progress: Progress,
    snapshots: Snapshots | None,
) -> Iterator[tuple[float, int]]:
    """Make one step after another: the loss of each (nats) and how many tokens it predicted."""
    rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    device, loss_of = model.W_E.device, _loss_module(model, recipe)
    parameters = list(model.parameters())
    rows = data.batch(progress.step, recipe.batch_size)
    for step in range(progress.step, recipe.steps):
        loss = _backward(loss_of, distributed.share(rows).to(device), recipe)
        norm = nn.utils.clip_grad_norm_(parameters, recipe.clip)
        tokens = rows[:, 1:].numel()
        if step + 1 < recipe.steps:  # read on while a GPU still works
            rows = data.batch(step + 1, recipe.batch_size)
        value, size = torch.stack([loss, norm]).tolist()
        if not (math.isfinite(value) and math.isfinite(size)):
            what = f"the loss is {value} and the gradient's norm {size} at step {step}"
            last = snapshots.last() if snapshots else "no snapshots were asked for"
            raise ValueError(f"{what}: lower lr or muon_lr; {last}")
        for opt, lrs in zip(opts, rates, strict=True):
            for group, lr in zip(opt.param_groups, lrs, strict=True):
                group["lr"] = lr * recipe.schedule(step)
            opt.step()
            opt.zero_grad()
        yield value, tokens


class _Loss(nn.Module):
    """The loss as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        return next_token_loss(self.model, rows)


def _loss_module(model: GPT, recipe: Recipe) -> nn.Module:
    module: Any = torch.compile(_Loss(model)) if recipe.compile else _Loss(model)
    if distributed.world() == 1:
        return module
    # With 0 layers shortformer positions take no part in the loss, and have no gradient.
    unused = model.cfg.n_layers == 0
    return DistributedDataParallel(
        module, forward_sync_buffers=False, find_unused_parameters=unused
    )


def _backward(
    loss_of: nn.Module, rows: Int[Tensor, "batch pos"], recipe: Recipe
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


def _check_shares(recipe: Recipe) -> None:
    parts = distributed.world() * recipe.accumulate
    if recipe.batch_size % parts:
        raise ValueError(
            f"a batch of {recipe.batch_size} rows cannot be cut into equal parts for "
            f"{distributed.world()} processes and accumulate={recipe.accumulate}"
        )


def _record(progress: Progress, measured: Record) -> Record:
    since = int(progress.records[-1]["step"]) if progress.records else 0
    losses = progress.losses[since:]
    return {
        "step": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "loss": sum(losses) / len(losses),
        **measured,
    }


def write_log(records: list[Record], recipe: Recipe, folder: Path) -> None:
    """recipe.json and log.jsonl in `folder`: what was done, and what was seen at each record."""
    lines = [json.dumps({k: round(v, 5) for k, v in record.items()}) for record in records]
    with replacing(folder / "recipe.json") as part:
        part.write_text(recipe.to_json())
    with replacing(folder / "log.jsonl") as part:
        part.write_text("\n".join(lines) + "\n")
