"""Recording a training history: a model is measured at about 150 steps of its training.

`record` measures one step on a fixed evaluation set and writes one file, so that a killed run keeps
its measurements. `collect` joins these files to one history.npz, which `dynamics.history` reads.
`remeasure` measures a run again if it kept its weights. The files hold only numbers, no text.
(Olsson et al. 2022, sections "Definitions" and "Argument 1",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.causal import ablation
from analyses.heads import attention, induction
from analyses.history.step_files import (
    FILE,
    arrays_of,
    numbered_files,
    save_arrays,
    stack_steps,
    warn_left_out,
    write_step,
)
from analyses.labelled import to_numpy
from analyses.losses import NEAR, early_and_late, of_tokens
from analyses.prompts import passages
from circuits import distributed
from circuits.files import alone
from circuits.io import load, load_weights, read_weights
from circuits.model import GPT
from circuits.training import Progress, Record

VECTOR = 2048
"The number of single tokens whose losses are kept at each step."
FEW = 64
"The number of evaluation rows for the losses of single tokens and for ablations."
AGAIN = ".again"
"The folder, in the folder of a run, where `remeasure` writes steps until all are measured."


def history_steps(total: int, count: int = 150) -> list[int]:
    """About `count` steps from 0 to `total`. Each step is a tenth larger than the last, until the
    gap reaches 1.5 * total / count; from there on the gap is constant."""
    steps, widest = [0], max(1, round(1.5 * total / count))
    while steps[-1] < total:
        steps.append(min(total, steps[-1] + min(max(1, round(steps[-1] / 10)), widest)))
    return steps


def record(
    model: GPT, progress: Progress, rows: Int[Tensor, "batch pos"], folder: Path | str
) -> None:
    """Measure the model on evaluation rows, see `history_entry`, and write the result to `folder`.
    With no rows only the losses of the steps are written, for a run that is measured later.
    """
    earlier = [
        step for step in numbered_files(Path(folder), "step", ".npz") if step < progress.step
    ]
    since = progress.losses[max(earlier, default=0) :]
    seen = history_entry(model, rows) if len(rows) else {}
    write_step(Path(folder), progress.step, progress.tokens, since, seen)


def log_entry(model: GPT, rows: Int[Tensor, "batch pos"]) -> Record:
    """The numbers of one line of log.jsonl: the held-out loss (nats) on evaluation rows, the scores
    of the best heads, and the losses on the first and on the second R of BOS + R + R."""
    beside = _on_cpu(model)
    loss = induction.loss_by_position(beside, prompts.repeated(beside))
    second = loss.pos >= loss.attrs["repeat"]
    previous = attention.previous_token(beside)
    return {
        "held_out": _losses(model, rows).mean().item(),
        "prefix_matching": _largest(attention.prefix_matching(beside)),
        "previous_token_layer_0": _largest(previous[:1]),
        "first_copy": float(loss[:, ~second].mean()),
        "second_copy": float(loss[:, second].mean()),
    }


def _largest(scores: DataArray) -> float:
    return float(scores.max()) if scores.size else 0.0


def history_entry(model: GPT, rows: Int[Tensor, "batch pos"]) -> dict[str, np.ndarray]:
    """The arrays of one step of the history, on evaluation rows of n_ctx + 1 tokens.

    Losses are measured on all rows; losses of single tokens and effects of ablation on the first
    FEW rows. Head scores are measured on random tokens, see `attention` and `induction`, on the
    CPU. A model with a tokenizer also reads the passage "story".
    """
    loss = _losses(model, rows)
    few = rows[:FEW]
    example, index = _vector(len(few), loss.shape[1])
    beside = _on_cpu(model)
    early, late = (loss[:, part].mean(1) for part in early_and_late(loss.shape[1]))
    return {
        "held_out": np.array(loss.mean().item(), dtype=np.float32),
        "loss_by_index": to_numpy(loss.mean(0)).astype(np.float32),
        "window_score": to_numpy(late - early).astype(np.float16),
        "window_gap": to_numpy(_quarters(loss)).astype(np.float16),
        "window_loss": to_numpy(loss.mean(1)).astype(np.float16),
        **_story(model),
        "token_loss": to_numpy(loss[example, index]).astype(np.float16),
        "prefix_matching": attention.prefix_matching(beside).values.astype(np.float16),
        "copying": induction.copying(beside).values.astype(np.float16),
        "previous_token": attention.previous_token(beside).values.astype(np.float16),
        "current_token": attention.current_token(beside).values.astype(np.float16),
        "qk_trace": induction.qk_trace(beside).values.astype(np.float32),
        **_ablated(model, few, example, index),
    }


def _quarters(loss: Float[Tensor, "batch next"]) -> Float[Tensor, " batch"]:
    """The loss of each row at three quarters of the context less that at one quarter, each a mean
    over a 64th of the context to either side."""
    n, near = loss.shape[1], round(loss.shape[1] * NEAR)
    first, third = (loss[:, max(0, at - near - 1) : at + near].mean(1)
                    for at in (round(n / 4), round(3 * n / 4)))  # fmt: skip
    return third - first


def _story(model: GPT) -> dict[str, np.ndarray]:
    """The loss of each token of the passage "story", up to the context's end."""
    if model.tokenizer is None:
        return {}
    tokens = model.to_tokens(passages.passage("story"))[:, : model.cfg.n_ctx + 1]
    return {"story_loss": to_numpy(_losses(model, tokens)[0]).astype(np.float16)}


def _losses(model: GPT, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch next"]:
    """The loss of each token, in single precision on the CPU."""
    return of_tokens(model, rows.to(model.W_E.device)).float().cpu()


def _ablated(
    model: GPT, rows: Int[Tensor, "batch pos"], example: Tensor, index: Tensor
) -> dict[str, np.ndarray]:
    """The rise of the kept tokens' losses and of the in-context score, by ablation of each head."""
    early, late = (
        torch.cartesian_prod(torch.arange(len(rows)), torch.arange(rows.shape[1] - 1)[part])
        for part in early_and_late(rows.shape[1] - 1)
    )
    asked = torch.cat([torch.stack([example, index], -1), early, late])
    whole, without = ablation.losses(model, rows, *asked.unbind(-1))
    kept, begun, ended = (without - whole).split([len(example), len(early), len(late)], -1)
    return {
        "ablated_loss": to_numpy(kept.mean(-1)).astype(np.float16),
        "ablated_in_context": to_numpy(ended.mean(-1) - begun.mean(-1)).astype(np.float16),
        "ablated_token_loss": to_numpy(kept).astype(np.float16),
    }


def _on_cpu(model: GPT) -> GPT:
    """The model if it is on the CPU, else a copy on the CPU, where analyses make their tokens."""
    return model if model.W_E.device.type == "cpu" else copy.deepcopy(model).cpu()


def collect(folder: Path | str, out: Path | str, losses: Sequence[float] = ()) -> None:
    """Write the recorded steps of `folder` as one file, `out`/history.npz. `losses`, if given, are
    the losses of all training steps."""
    arrays = stack_steps(folder)
    if len(losses):
        arrays["step_loss"] = np.array(losses, dtype=np.float32)
    save_arrays(Path(out) / FILE, arrays)


def remeasure(folder: Path | str, rows: Int[Tensor, "batch pos"], every: int = 1) -> None:
    """Measure a finished run again on these rows, from the weights that it kept.

    The weights are in half precision. With `every`, each n-th of the kept steps is measured, and
    the last step; the new history has these steps alone. In a process group each process measures
    its share of the steps. history.npz is replaced when the new file is complete. ValueError for a
    run without kept weights, for `every` below 1, and if another process uses the folder.
    """
    folder = Path(folder)
    if every < 1:
        raise ValueError(f"every n-th step is measured, from 1; got {every}")
    with alone(folder) if distributed.rank() == 0 else nullcontext():
        _remeasure(folder, load(folder), rows, every)


def _remeasure(folder: Path, model: GPT, rows: Int[Tensor, "batch pos"], every: int) -> None:
    files = numbered_files(folder / "weights", "weights", ".safetensors")
    if not files or not (folder / FILE).is_file():
        raise ValueError(f"{folder} kept no weights of its training: run it with --keep-weights")
    before = arrays_of(folder / FILE)
    tokens = dict(zip(before["step"].tolist(), before["tokens"].tolist(), strict=True))
    for step in sorted(files.keys() - tokens.keys()):
        warn_left_out(files.pop(step), "its step is not in the history")
    new, first = folder / AGAIN, distributed.rank() == 0
    if first:
        _discard(new)  # of a killed process
    distributed.of_rank_0(0, torch.device("cpu"))
    steps = sorted(files)
    chosen = sorted({*steps[::every], *steps[-1:]})
    for step in chosen[distributed.rank() :: distributed.world()]:
        weights = {name: w.float() for name, w in read_weights(files[step]).items()}
        try:
            load_weights(model, weights)
        except ValueError as error:
            raise ValueError(f"{files[step]}: {error}") from None
        write_step(new, step, tokens[step], [], history_entry(model, rows))
    distributed.of_rank_0(0, torch.device("cpu"))  # wait until all ranks are done
    if first:
        collect(new, folder, before["step_loss"].tolist())
        _discard(new)


def _discard(folder: Path) -> None:
    for file in numbered_files(folder, "step", ".npz").values():
        file.unlink()
    with suppress(OSError):
        folder.rmdir()


def _vector(examples: int, length: int) -> tuple[Tensor, Tensor]:
    """The example and the index of each token in token_loss: at most VECTOR tokens, spread evenly
    over the examples."""
    each = min(length, -(-VECTOR // examples))
    rng = np.random.default_rng(0)
    index = np.stack([rng.choice(length, each, replace=False) for _ in range(examples)])
    example = np.repeat(np.arange(examples), each)
    return torch.from_numpy(example[:VECTOR]), torch.from_numpy(index.reshape(-1)[:VECTOR])
