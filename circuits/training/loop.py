"""One training loop, from a laptop's core to many processes under torchrun.

A step reads a batch, takes the next-token loss at every position, clips the gradient, and moves
along a warm-up and a cosine. Batches are a function of the step and the seed, so a recipe
and its data give the same model on the same machine again, in one piece or in many.

Inside of a process group (circuits.distributed.group) each process takes its share of the rows,
gradients are averaged by torch's DistributedDataParallel (or FSDP2), and rank 0 alone evaluates and
writes. The batch is that of the recipe however many processes share it.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from circuits import distributed
from circuits.data import Batches
from circuits.files import write
from circuits.model import GPT
from circuits.training.loss import backward, loss_module, next_token_loss
from circuits.training.optimizers import Muon, optimizers, orthogonalised
from circuits.training.recipe import Recipe
from circuits.training.sharded import gathered, joined, whole
from circuits.training.snapshots import Progress, Record, Snapshots, restore, state

__all__ = [
    "Muon", "Progress", "Recipe", "Record", "Snapshots", "Watch", "identity", "next_token_loss",
    "optimizers", "orthogonalised", "train", "write_log",
]  # fmt: skip

Watch = Callable[[GPT, Progress], bool | None]
"""Sees the model before the first step and after every one, in every process; True in rank 0 ends
the run there."""


def train(
    model: GPT,
    data: Batches,
    recipe: Recipe,
    evaluate: Callable[[GPT], Record] | None = None,
    *,
    snapshots: Snapshots | None = None,
    watch: Watch | None = None,
    shard: bool = False,
) -> Iterator[Record]:
    """Train the model in place, yielding a record every `evaluate_every` steps and at the end.

    `loss` is the mean since the record before. If the folder of `snapshots` holds some, the run
    goes on from there: the records so far come first, and all is as if it had never stopped.
    ValueError with the step and the last snapshot if the loss is not finite, and for a folder whose
    run has another recipe, config or data. With `shard` the processes share out the weights, see
    circuits.training.sharded: for a model that does not fit into one of them.
    """
    _check_shares(recipe)
    loss_of = loss_module(model, recipe, shard=shard)
    opts, device = optimizers(model, recipe), model.W_E.device
    disk = _OnDisk(model, opts, snapshots, identity(model, data, recipe) if snapshots else {})
    progress = disk.begun()
    start = time.monotonic() - progress.seconds
    yield from tuple(progress.records)

    def stopped() -> bool:
        says = bool(watch(model, progress)) if watch else False
        return bool(distributed.agreed(says, device)) if watch else False

    if stopped():
        return
    for loss, tokens in _steps(model, loss_of, opts, data, recipe, progress, snapshots):
        progress.step += 1
        progress.tokens += tokens
        progress.losses.append(loss)
        progress.seconds = time.monotonic() - start
        last = progress.step == recipe.steps
        due = last or progress.step % recipe.evaluate_every == 0
        if due:
            seen = whole(model) if evaluate else None
            measured = evaluate(seen) if evaluate and seen else {}
            progress.records.append(_record(progress, measured))
        stop = stopped()
        disk.write(progress, now=last or stop)
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


@dataclass(frozen=True)
class _OnDisk:
    """What is kept of a run, if anything is."""

    model: GPT
    opts: list[torch.optim.Optimizer]
    snapshots: Snapshots | None
    known: dict[str, Any]

    def begun(self) -> Progress:
        """Where the run stands: at its last snapshot, or at the first one, of step 0."""
        if self.snapshots is None:
            return Progress()
        found = self.snapshots.newest(self.known)
        tensors, progress = found or ({}, Progress())
        step = progress.step if found else -1
        if distributed.agreed(step, self.model.W_E.device) != step:
            raise ValueError(
                f"rank {distributed.rank()} does not see the snapshot that rank 0 sees: "
                f"{self.snapshots.folder} must be one folder that all processes share"
            )
        if found:
            restore(tensors, self.model, self.opts)
        else:
            self.write(progress, now=True)
        return progress

    def write(self, progress: Progress, *, now: bool) -> None:
        """Weights and a snapshot, if they are due; by rank 0, with what it gathers from all."""
        if self.snapshots is None:
            return
        first = distributed.rank() == 0
        if progress.step in self.snapshots.weights_at:
            weights = gathered(self.model.state_dict())
            if first:
                self.snapshots.write_weights(weights, progress.step)
        if not now and progress.step % self.snapshots.every:
            return
        tensors = gathered(state(self.model, self.opts))
        if not first:
            return
        try:
            self.snapshots.write(tensors, progress, self.known)
        except ValueError as error:
            raise ValueError(f"{error}: lower lr or muon_lr; {self.snapshots.last()}") from None
        except OSError as error:
            words = f"{error.strerror}; {self.snapshots.last()}"
            raise OSError(error.errno, words) from error


def _steps(
    model: GPT,
    loss_of: nn.Module,
    opts: list[torch.optim.Optimizer],
    data: Batches,
    recipe: Recipe,
    progress: Progress,
    snapshots: Snapshots | None,
) -> Iterator[tuple[float, int]]:
    """Make one step after another: the loss of each (nats) and how many tokens it predicted."""
    rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    device, parameters = model.W_E.device, list(model.parameters())
    rows = data.batch(progress.step, recipe.batch_size)
    for step in range(progress.step, recipe.steps):
        with torch.enable_grad():  # whatever the caller has set for himself
            loss = backward(loss_of, distributed.share(rows).to(device), recipe)
        norm = joined(nn.utils.clip_grad_norm_(parameters, recipe.clip))
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
    write(folder / "recipe.json", recipe.to_json())
    write(folder / "log.jsonl", "\n".join(lines) + "\n")
