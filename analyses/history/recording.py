"""Recording a training history: what is measured at some 150 steps of a run, as it runs.

`record` measures one step on a fixed evaluation set, into a file of its own, so that a killed run
keeps what it had; `collect` makes one history.npz of them, for `dynamics.history` to read. `again`
measures a run anew whose weights were kept. There are only numbers in it, no text. (Olsson et al.
2022, sections "Definitions" and "Argument 1",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import copy
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.causal import ablation
from analyses.heads import attention, induction
from analyses.labelled import to_numpy
from analyses.losses import early_and_late, of_tokens
from circuits import distributed
from circuits.files import alone, replacing
from circuits.io import load, load_weights, read_weights
from circuits.model import GPT
from circuits.training import Progress

FILE = "history.npz"
VECTOR = 2048
"Losses of single tokens that are kept at each step."
AGAIN = ".again"
"The folder in that of a run where `again` puts the steps until it has them all."


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
    earlier = [step for step in numbered(Path(folder), "step", ".npz") if step < progress.step]
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


def collect(folder: Path | str, out: Path | str, losses: Sequence[float] = ()) -> None:
    """Write the recorded steps of `folder` as one file, `out`/history.npz; `losses` are those of
    all steps, where they are known."""
    arrays = stacked(folder)
    if len(losses):
        arrays["step_loss"] = np.array(losses, dtype=np.float32)
    _save(Path(out) / FILE, arrays)


def again(folder: Path | str, rows: Int[Tensor, "batch pos"]) -> None:
    """Measure a finished run anew, on other rows or for more, from the weights that it kept.

    They are in half precision. In a process group each process measures its share of the steps.
    ValueError for a run that kept none, and if another process is at work in the folder; its
    history.npz is replaced when the new one is whole.
    """
    folder = Path(folder)
    with alone(folder) if distributed.rank() == 0 else nullcontext():
        _again(folder, load(folder), rows)


def _again(folder: Path, model: GPT, rows: Int[Tensor, "batch pos"]) -> None:
    files = numbered(folder / "weights", "weights", ".safetensors")
    if not files or not (folder / FILE).is_file():
        raise ValueError(f"{folder} kept no weights of its training: run it with --keep-weights")
    before = arrays_of(folder / FILE)
    tokens = dict(zip(before["step"].tolist(), before["tokens"].tolist(), strict=True))
    for step in sorted(files.keys() - tokens.keys()):
        _left_out(files.pop(step), "its step is not in the history")
    new, first = folder / AGAIN, distributed.rank() == 0
    if first:
        _discard(new)  # of a killed process
    distributed.agreed(0, torch.device("cpu"))
    for step in sorted(files)[distributed.rank() :: distributed.world()]:
        weights = {name: w.float() for name, w in read_weights(files[step]).items()}
        try:
            load_weights(model, weights)
        except ValueError as error:
            raise ValueError(f"{files[step]}: {error}") from None
        _write(new, step, tokens[step], [], measured(model, rows))
    distributed.agreed(0, torch.device("cpu"))  # that all are done
    if first:
        collect(new, folder, before["step_loss"].tolist())
        _discard(new)


def _discard(folder: Path) -> None:
    for file in numbered(folder, "step", ".npz").values():
        file.unlink()
    with suppress(OSError):
        folder.rmdir()


def stacked(folder: Path | str) -> dict[str, np.ndarray]:
    """All recorded steps of a folder as one array for each kind; ValueError if there are none.

    A step that is damaged, or measured on other rows than the rest, is left out with a warning that
    names its file, as is a file that is no step; the losses of steps nobody knows are NaN.
    `ablated_along` [step layer head ablation step] stands for the kept tokens' losses under
    ablation: the mean over tokens of what ablation adds times the loss at each step, less that at
    the last, which is all that an attribution to any part of the training needs.
    """
    parts = _alike(_parts(Path(folder)))
    if not parts:
        raise ValueError(f"{folder} holds no recorded steps")
    steps, every = list(parts), list(parts.values())
    apart = ("step_loss", "ablated_token_loss")
    arrays = {key: np.stack([p[key] for p in every]) for key in every[0] if key not in apart}
    if "token_loss" in arrays:
        loss = arrays["token_loss"].astype(np.float32)
        change = (loss - loss[-1]).T / loss.shape[1]  # token step
        along = [part["ablated_token_loss"].astype(np.float32) @ change for part in every]
        arrays["ablated_along"] = np.stack(along).astype(np.float16)
    step_loss = np.full(max(steps), np.nan, dtype=np.float32)
    for step, part in parts.items():
        known = part["step_loss"]
        step_loss[step - len(known) : step] = known
    return {**arrays, "step": np.array(steps), "step_loss": step_loss}


def _parts(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """What each step's file holds, of those that can be read."""
    files, parts = numbered(folder, "step", ".npz"), {}
    for file in sorted(set(folder.glob("step-*")) - set(files.values())):
        _left_out(file, "it is no step")
    for step, file in sorted(files.items()):
        try:
            parts[step] = arrays_of(file)
            if not 0 <= len(parts[step]["step_loss"]) <= step or "tokens" not in parts[step]:
                raise ValueError("its losses do not fit its step")
        except (ValueError, KeyError, TypeError) as error:
            parts.pop(step, None)
            _left_out(file, str(error))
    return parts


def _alike(parts: dict[int, dict[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """The steps that hold the same kinds and shapes as most do."""
    kinds = {step: tuple(sorted((key, value.shape, value.dtype.str) for key, value in part.items()
                                if key != "step_loss"))
             for step, part in parts.items()}  # fmt: skip
    most = Counter(kinds.values()).most_common(1)[0][0] if kinds else ()
    for step in [step for step, kind in kinds.items() if kind != most]:
        _left_out(f"step {step}", "it was measured otherwise than most")
        del parts[step]
    return parts


def _left_out(what: Path | str, why: str) -> None:
    warnings.warn(f"{what} is left out of the history: {why}", stacklevel=4)


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; ValueError with its name for one that is damaged."""
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # what unzipping random bytes raises has no end
        first = str(error).split("\n")[0]
        raise ValueError(f"{file} cannot be read: {type(error).__name__}: {first}") from None


def numbered(folder: Path, kind: str, ending: str) -> dict[int, Path]:
    """The files kind-STEP.ending of a folder by their step; none of any other name."""
    name = re.compile(rf"{kind}-(\d{{8,}}){re.escape(ending)}")
    found = ((name.fullmatch(file.name), file) for file in folder.glob(f"{kind}-*"))
    return {int(match[1]): file for match, file in found if match}


def _vector(examples: int, length: int) -> tuple[Tensor, Tensor]:
    """Which tokens token_loss holds: the same number of places in every example, VECTOR in all."""
    each = min(length, -(-VECTOR // examples))
    rng = np.random.default_rng(0)
    index = np.stack([rng.choice(length, each, replace=False) for _ in range(examples)])
    example = np.repeat(np.arange(examples), each)
    return torch.from_numpy(example[:VECTOR]), torch.from_numpy(index.reshape(-1)[:VECTOR])


def _write(
    folder: Path, step: int, tokens: int, step_loss: Sequence[float], rest: dict[str, np.ndarray]
) -> None:
    counted = {"tokens": np.array(tokens), "step_loss": np.array(step_loss, dtype=np.float32)}
    _save(folder / f"step-{step:08d}.npz", {**counted, **rest})


def _save(file: Path, arrays: dict[str, np.ndarray]) -> None:
    with replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
