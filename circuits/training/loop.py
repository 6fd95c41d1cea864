"""The training loop, on one core or in many processes under torchrun.

A step reads a batch, computes the next-token loss at every position, clips the gradient and updates
the weights; the learning rate has a warm-up and a cosine. Step and seed determine a batch, so a
recipe and its data give the same model again on the same machine, also if the run was resumed.

In a process group (circuits.distributed.group) each process takes its share of the rows. torch's
DistributedDataParallel (or FSDP2) averages gradients. Only rank 0 evaluates and writes. The batch
size of the recipe is the sum over all processes.
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
from torch import nn

from circuits import distributed
from circuits.data import Batches
from circuits.files import write
from circuits.model import GPT
from circuits.training.loss import backward, loss_module
from circuits.training.optimizers import optimizers
from circuits.training.recipe import Recipe
from circuits.training.sharded import full_tensor, gather, gather_model
from circuits.training.snapshots import Progress, Record, Snapshots, restore, state

Watch = Callable[[GPT, Progress], bool | None]
"""A function that is called before the first step and after every step, in every process. If it
returns True in rank 0, the run ends."""


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

    A record's `loss` is the mean loss since the last record. If the folder of `snapshots` holds
    snapshots, the run resumes from the newest: it yields the earlier records first, and the result
    is the same as without the interruption. The folder is locked during the run. ValueError if the
    loss is not finite (it names the step and the last snapshot), for a folder whose run has another
    recipe, config or data, and for a folder that another run has locked. With `shard` each process
    holds a part of the weights, for a model that does not fit into one process.
    """
    _check_shares(recipe)
    with snapshots.lock() if snapshots and distributed.rank() == 0 else nullcontext():
        run = _Run(model, data, recipe, snapshots, shard=shard)
        progress = run.progress
        yield from tuple(progress.records)
        start = time.monotonic() - progress.seconds
        if _is_stopped(watch, model, progress):
            return
        for loss, tokens in run.losses():
            progress.step += 1
            progress.tokens += tokens
            progress.losses.append(loss)
            progress.seconds = time.monotonic() - start
            last = progress.step == recipe.steps
            due = last or progress.step % recipe.evaluate_every == 0
            if due:
                seen = gather_model(model) if evaluate else None
                measured = evaluate(seen) if evaluate and seen else {}
                progress.records.append(_record(progress, measured))
            stop = _is_stopped(watch, model, progress)
            run.save(now=last or stop)
            if due:
                yield progress.records[-1]
            if stop:
                return


def _is_stopped(watch: Watch | None, model: GPT, progress: Progress) -> bool:
    """Whether `watch` ends the run in rank 0."""
    stop = watch is not None and bool(watch(model, progress))
    return watch is not None and bool(distributed.of_rank_0(stop, model.W_E.device))


class _Run:
    """A run: the model, its optimizers, its progress and, if wanted, its snapshots."""

    def __init__(
        self,
        model: GPT,
        data: Batches,
        recipe: Recipe,
        snapshots: Snapshots | None,
        *,
        shard: bool,
    ) -> None:
        self.model, self.data, self.recipe, self.snapshots = model, data, recipe, snapshots
        self.loss_of = loss_module(model, recipe, shard=shard)
        self.opts = optimizers(model, recipe)
        self.progress = Progress()
        if snapshots is not None:
            self._resume(snapshots)

    def _resume(self, snapshots: Snapshots) -> None:
        """Resume from the newest snapshot, or write a first snapshot at step 0."""
        self.identity = identity(self.model, self.data, self.recipe)
        found = snapshots.newest(self.identity)
        step = found[1].step if found else -1
        if distributed.of_rank_0(step, self.model.W_E.device) != step:
            raise ValueError(
                f"rank {distributed.rank()} does not see the snapshot that rank 0 sees: "
                f"{snapshots.folder} must be one folder that all processes share"
            )
        if found:
            tensors, self.progress = found
            restore(tensors, self.model, self.opts)
        else:
            self.save(now=True)

    def save(self, *, now: bool) -> None:
        """Write weights and a snapshot if they are due; rank 0 gathers the parts of all ranks."""
        if self.snapshots is None:
            return
        first, step = distributed.rank() == 0, self.progress.step
        if step in self.snapshots.weights_at:
            weights = gather(self.model.state_dict())
            if first:
                self.snapshots.write_weights(weights, step)
        if not now and step % (self.snapshots.every or self.recipe.evaluate_every):
            return
        tensors = gather(state(self.model, self.opts))
        if not first:
            return
        try:
            self.snapshots.write(tensors, self.progress, self.identity)
        except ValueError as error:
            raise ValueError(f"{error}: lower lr or muon_lr; {self.snapshots.last()}") from None
        except OSError as error:
            words = f"{error.strerror}; {self.snapshots.last()}"
            raise OSError(error.errno, words) from error

    def losses(self) -> Iterator[tuple[float, int]]:
        """Make the steps of the run, and yield each step's loss (nats) and number of targets."""
        rates = [[group["lr"] for group in opt.param_groups] for opt in self.opts]
        device, parameters = self.model.W_E.device, list(self.model.parameters())
        rows = self.data.batch(self.progress.step, self.recipe.batch_size)
        for step in range(self.progress.step, self.recipe.steps):
            with torch.enable_grad():  # also if the caller has turned gradients off
                loss = backward(self.loss_of, distributed.share(rows).to(device), self.recipe)
            norm = full_tensor(nn.utils.clip_grad_norm_(parameters, self.recipe.clip))
            tokens = rows[:, 1:].numel()
            if step + 1 < self.recipe.steps:  # read the next batch while a GPU computes
                rows = self.data.batch(step + 1, self.recipe.batch_size)
            value, size = torch.stack([loss, norm]).tolist()
            if not (math.isfinite(value) and math.isfinite(size)):
                what = f"the loss is {value} and the gradient's norm {size} at step {step}"
                last = self.snapshots.last() if self.snapshots else "no snapshots were asked for"
                raise ValueError(f"{what}: lower lr or muon_lr; {last}")
            for opt, lrs in zip(self.opts, rates, strict=True):
                for group, lr in zip(opt.param_groups, lrs, strict=True):
                    group["lr"] = lr * self.recipe.schedule(step)
                opt.step()
                opt.zero_grad()
            yield value, tokens


def identity(model: GPT, data: Batches, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The recipe, the config and a hash of the first batches. A run resumes only if all are the
    same."""
    read = hashlib.sha256()
    for step in (0, 1):
        rows = data.batch(step, recipe.batch_size)
        read.update(repr(list(rows.shape)).encode() + rows.long().contiguous().numpy().tobytes())
    first = {"hash of the first batches": read.hexdigest()[:16]}
    return {"recipe": asdict(recipe), "config": asdict(model.cfg), "data": first}


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
    """Write recipe.json and log.jsonl, the recipe and the records, to `folder`."""
    lines = [json.dumps({k: round(v, 5) for k, v in record.items()}) for record in records]
    write(folder / "recipe.json", recipe.to_json())
    write(folder / "log.jsonl", "\n".join(lines) + "\n")
