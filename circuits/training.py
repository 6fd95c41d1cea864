"""One training loop, from a laptop's core to many processes under torchrun.

A step reads a batch, takes the next-token loss at every position, clips the gradient, and moves
along a warm-up and a cosine. Batches are a function of the step and the seed, so a recipe
and its data give the same model on the same machine again, in one piece or in many.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.data import Batches
from circuits.files import replacing
from circuits.model import GPT
from circuits.optimizers import Muon, optimizers, orthogonalised
from circuits.recipe import Recipe
from circuits.snapshots import Progress, Record, Snapshots, restore, state

__all__ = ["Muon", "Recipe", "Record", "Snapshots", "Watch", "identity", "next_token_loss",
           "optimizers", "orthogonalised", "train", "write_log"]  # fmt: skip

Watch = Callable[[GPT, int, Sequence[float]], bool | None]
"Sees the model, the steps done and all losses so far after every step; True ends the run there."


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
    opts = optimizers(model, recipe)
    known = identity(model, data, recipe) if snapshots else {}
    progress = _begun(model, opts, snapshots, known)
    start = time.monotonic() - progress.seconds
    yield from tuple(progress.records)
    if watch and watch(model, progress.step, progress.losses):
        return
    since = progress.records[-1]["step"] if progress.records else 0
    for loss, tokens in _steps(model, opts, data, recipe, progress, snapshots):
        progress.step += 1
        progress.tokens += tokens
        progress.losses.append(loss)
        progress.seconds = time.monotonic() - start
        last = progress.step == recipe.steps
        due = last or progress.step % recipe.evaluate_every == 0
        if due:
            record = _record(progress, since, evaluate(model) if evaluate else {})
            progress.records.append(record)
            since = progress.step
        stop = bool(watch and watch(model, progress.step, progress.losses))
        if snapshots and (last or stop or progress.step % snapshots.every == 0):
            _snapshot(model, opts, progress, snapshots, known)
        if snapshots:
            snapshots.write_weights(model, progress.step)
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
    if found is None:
        progress = Progress()
        _snapshot(model, opts, progress, snapshots, known)
        snapshots.write_weights(model, 0)
        return progress
    tensors, progress = found
    restore(tensors, model, opts)
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
    device, loss_of = model.W_E.device, _loss(recipe)
    rows = data.batch(progress.step, recipe.batch_size)
    for step in range(progress.step, recipe.steps):
        loss = _backward(model, loss_of, rows.to(device), recipe)
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
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


def _loss(recipe: Recipe) -> Callable[[GPT, Tensor], Tensor]:
    return torch.compile(next_token_loss) if recipe.compile else next_token_loss


def _backward(
    model: GPT,
    loss_of: Callable[[GPT, Tensor], Tensor],
    rows: Int[Tensor, "batch pos"],
    recipe: Recipe,
) -> Float[Tensor, ""]:
    """The mean loss of the rows, whose gradient is left in the parameters."""
    total = torch.zeros((), device=rows.device, dtype=model.W_E.dtype)
    for part in rows.chunk(recipe.accumulate):
        half = torch.autocast(rows.device.type, torch.bfloat16) if recipe.bf16 else nullcontext()
        with half:
            loss = loss_of(model, part) / recipe.accumulate
        loss.backward()
        total += loss.detach()
    return total


def _record(progress: Progress, since: int | float, measured: Record) -> Record:
    losses = progress.losses[int(since) :]
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
