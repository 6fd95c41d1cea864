"""Recording a training history: what is measured at some 150 steps of a run, as it runs.

`record` measures one step on a fixed evaluation set, into a file of its own, so that a killed run
keeps what it had; `collect` makes one history.npz of them, for `dynamics.history` to read. `again`
measures a run anew whose weights were kept. There are only numbers in it, no text. (Olsson et al.
2022, sections "Definitions" and "Argument 1",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file
from torch import Tensor

from analyses import ablation, attention, induction
from analyses.labelled import to_numpy
from analyses.losses import of_tokens
from circuits import distributed
from circuits.checkpoints import load_weights
from circuits.files import PART, replacing
from circuits.model import GPT
from circuits.pretrained import load
from circuits.snapshots import Progress

FILE = "history.npz"
VECTOR = 2048
"Losses of single tokens that are kept at each step."
EARLY, LATE, NEAR = 50 / 512, 500 / 512, 1 / 64
"""The two token indices of the in-context score, as shares of the context (paper: 50 and 500 of
512), and how far to either side of them it is averaged."""


def early_and_late(n: int) -> tuple[slice, slice]:
    """Where the in-context score looks among the losses of n tokens, the first of index 1."""
    near = round(n * NEAR)
    middles = (max(1, round(share * n)) for share in (EARLY, LATE))
    early, late = (slice(max(0, at - near - 1), at + near) for at in middles)
    return early, late


def history_steps(total: int, count: int = 150) -> list[int]:
    """About `count` steps from 0 to `total`: each a tenth after the one before, until the gap is
    that of two thirds of them evenly spaced."""
    steps, widest = [0], max(1, round(1.5 * total / count))
    while steps[-1] < total:
        steps.append(min(total, steps[-1] + min(max(1, round(steps[-1] / 10)), widest)))
    return steps


def losses(model: GPT, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
    """Loss in nats of rows[:, 1:] given what is before each; a few rows at a time, kept on CPU."""
    return of_tokens(model, rows.to(model.W_E.device)).float().cpu()


def record(
    model: GPT, progress: Progress, rows: Int[Tensor, "batch pos"], folder: Path | str
) -> None:
    """Measure the model where it stands on evaluation rows, see `measured`, into `folder`.

    Without any rows only the losses of the steps are kept, for a run that is measured later.
    """
    earlier = [step for step in _recorded(Path(folder)) if step < progress.step]
    since = progress.losses[max(earlier, default=0) :]
    seen = measured(model, rows) if len(rows) else {}
    _write(Path(folder), progress.step, progress.tokens, since, seen)


def measured(model: GPT, rows: Int[Tensor, "batch pos"]) -> dict[str, np.ndarray]:
    """What is kept of a step, on evaluation rows of one more token than the context.

    The heads are measured on random tokens, see `attention` and `induction`, on a copy on the CPU;
    what their ablation costs, on the evaluation rows.
    """
    loss = losses(model, rows)
    example, index = _vector(len(rows), loss.shape[1])
    beside = on_cpu(model)
    return {
        "held_out": np.array(loss.mean().item(), dtype=np.float32),
        "loss_by_index": to_numpy(loss.mean(0)).astype(np.float32),
        "token_loss": to_numpy(loss[example, index]).astype(np.float16),
        "prefix_matching": attention.prefix_matching(beside).values.astype(np.float16),
        "copying": induction.copying(beside).values.astype(np.float16),
        "previous_token": attention.previous_token(beside).values.astype(np.float16),
        "qk_trace": induction.qk_trace(beside).values.astype(np.float32),
        **_ablated(model, rows, example, index),
    }


def _ablated(
    model: GPT, rows: Int[Tensor, "batch pos"], example: Tensor, index: Tensor
) -> dict[str, np.ndarray]:
    """What each head's ablation adds to the kept tokens' losses, and to the in-context score."""
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


def on_cpu(model: GPT) -> GPT:
    """The model, or a copy of it on the CPU, where the analyses make their tokens."""
    return model if model.W_E.device.type == "cpu" else copy.deepcopy(model).cpu()


def collect(folder: Path | str, out: Path | str) -> None:
    """Write the recorded steps of `folder` as one file, `out`/history.npz."""
    _save(Path(out) / FILE, stacked(folder))


def again(folder: Path | str, rows: Int[Tensor, "batch pos"]) -> None:
    """Measure a finished run anew, on other rows or for more, from the weights that it kept.

    They are in half precision. In a process group each process measures its share of the steps.
    ValueError for a run that kept none; its history.npz is replaced when the new one is whole.
    """
    folder, model = Path(folder), load(folder)
    files = {int(file.stem.rpartition("-")[2]): file for file in (folder / "weights").glob("*")}
    if not files or not (folder / FILE).is_file():
        raise ValueError(f"{folder} kept no weights of its training: run it with --keep-weights")
    with np.load(folder / FILE) as file:
        tokens = dict(zip(file["step"].tolist(), file["tokens"].tolist(), strict=True))
        step_loss = file["step_loss"]
    steps, new = sorted(files), folder / f"{PART}again"
    mine = list(zip([0, *steps], steps, strict=False))[distributed.rank() :: distributed.world()]
    for before, step in mine:
        load_weights(model, {name: w.float() for name, w in load_file(files[step]).items()})
        _write(new, step, tokens[step], step_loss[before:step].tolist(), measured(model, rows))
    distributed.agreed(0, torch.device("cpu"))  # that all are done
    if distributed.rank() == 0:
        collect(new, folder)
        shutil.rmtree(new)


def stacked(folder: Path | str) -> dict[str, np.ndarray]:
    """All recorded steps of a folder as one array for each kind; ValueError if there are none.

    `ablated_along` [step layer head ablation step] stands for the kept tokens' losses under
    ablation: the mean over tokens of what ablation adds times the loss at each step, less that at
    the last, which is all that an attribution to any part of the training needs.
    """
    steps = _recorded(Path(folder))
    if not steps:
        raise ValueError(f"{folder} holds no recorded steps")
    parts = []
    for step in steps:
        with np.load(Path(folder) / f"step-{step:08d}.npz") as file:
            parts.append({key: file[key] for key in file.files})
    apart = ("step_loss", "ablated_token_loss")
    arrays = {key: np.stack([p[key] for p in parts]) for key in parts[0] if key not in apart}
    if "token_loss" in arrays:
        loss = arrays["token_loss"].astype(np.float32)
        change = (loss - loss[-1]).T / loss.shape[1]  # token step
        along = [part["ablated_token_loss"].astype(np.float32) @ change for part in parts]
        arrays["ablated_along"] = np.stack(along).astype(np.float16)
    return {
        **arrays,
        "step": np.array(steps),
        "step_loss": np.concatenate([part["step_loss"] for part in parts]),
    }


def _vector(examples: int, length: int) -> tuple[Tensor, Tensor]:
    """Which tokens token_loss holds: the same number of places in every example, VECTOR in all."""
    each = min(length, -(-VECTOR // examples))
    rng = np.random.default_rng(0)
    index = np.stack([rng.choice(length, each, replace=False) for _ in range(examples)])
    example = np.repeat(np.arange(examples), each)
    return torch.from_numpy(example[:VECTOR]), torch.from_numpy(index.reshape(-1)[:VECTOR])


def _recorded(folder: Path) -> list[int]:
    return sorted(int(file.stem.removeprefix("step-")) for file in folder.glob("step-*.npz"))


def _write(
    folder: Path, step: int, tokens: int, step_loss: Sequence[float], rest: dict[str, np.ndarray]
) -> None:
    counted = {"tokens": np.array(tokens), "step_loss": np.array(step_loss, dtype=np.float32)}
    _save(folder / f"step-{step:08d}.npz", {**counted, **rest})


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
