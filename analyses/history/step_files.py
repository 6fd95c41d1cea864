"""The files of a history: one .npz for each recorded step, and one of all steps."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from circuits.files import replacing

FILE = "history.npz"
DIRECTIONS = 16
"The number of principal directions of the token losses on which ablations are kept."
LATER = ("window_gap", "current_token")
"""What later versions record beside the rest. A run that an earlier version began keeps all its
steps, and lacks these."""


def stack_steps(folder: Path | str) -> dict[str, np.ndarray]:
    """All recorded steps of a folder as one array for each kind; ValueError if there are none.

    A step that is damaged, or measured on other rows than the rest, is left out with a warning that
    names its file, and so is a file that is no step. The losses of steps in no file are NaN.

    The losses of single tokens under ablation are kept on DIRECTIONS alone, see `directions`:
    `ablated_on` [step layer head ablation direction], the rise by ablation, and `loss_on` [step
    direction], the loss less the loss at the last step. An attribution needs no more.
    """
    parts = _alike(_without_later(_parts(Path(folder))))
    if not parts:
        raise ValueError(f"{folder} holds no recorded steps")
    steps, every = list(parts), list(parts.values())
    apart = ("step_loss", "ablated_token_loss")
    arrays = {key: np.stack([p[key] for p in every]) for key in every[0] if key not in apart}
    if "token_loss" in arrays:
        arrays["loss_on"], axes = directions(arrays["token_loss"])
        on = [part["ablated_token_loss"].astype(np.float32) @ axes for part in every]
        arrays["ablated_on"] = np.stack(on).astype(np.float32)
    step_loss = np.full(max(steps), np.nan, dtype=np.float32)
    for step, part in parts.items():
        known = part["step_loss"]
        step_loss[step - len(known) : step] = known
    return {**arrays, "step": np.array(steps), "step_loss": step_loss}


def directions(
    token_loss: Float[np.ndarray, "step token"], count: int | None = DIRECTIONS
) -> tuple[Float[np.ndarray, "step direction"], Float[np.ndarray, "token direction"]]:
    """The token losses less those of the last step, on the principal directions of these changes;
    and the directions, orthonormal. Few directions hold nearly all of the changes; with None all
    directions are kept."""
    change = token_loss.astype(np.float64) - token_loss[-1].astype(np.float64)
    square, steps = np.linalg.eigh(change @ change.T)  # far fewer steps than tokens
    kept = (square > 1e-9 * max(square.max(initial=0.0), 1e-30)) & (square > 0)
    order = np.flatnonzero(kept)[::-1][:count]
    axes = change.T @ steps[:, order] / np.sqrt(square[order])
    return (change @ axes).astype(np.float32), axes.astype(np.float32)


def _parts(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """The arrays of each step whose file can be read."""
    files, parts = numbered_files(folder, "step", ".npz"), {}
    for file in sorted(set(folder.glob("step-*")) - set(files.values())):
        warn_left_out(file, "it is no step")
    for step, file in sorted(files.items()):
        try:
            parts[step] = arrays_of(file)
            if not 0 <= len(parts[step]["step_loss"]) <= step or "tokens" not in parts[step]:
                raise ValueError("its losses do not fit its step")
        except (ValueError, KeyError, TypeError) as error:
            parts.pop(step, None)
            warn_left_out(file, str(error))
    return parts


def _without_later(parts: dict[int, dict[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """All steps, without the kinds of LATER that not all of them hold."""
    lacking = {key for key in LATER if not all(key in part for part in parts.values())}
    return {step: {key: value for key, value in part.items() if key not in lacking}
            for step, part in parts.items()}  # fmt: skip


def _alike(parts: dict[int, dict[str, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """The steps that hold the same kinds and shapes as most do."""
    kinds = {step: tuple(sorted((key, value.shape, value.dtype.str) for key, value in part.items()
                                if key != "step_loss"))
             for step, part in parts.items()}  # fmt: skip
    most = Counter(kinds.values()).most_common(1)[0][0] if kinds else ()
    for step in [step for step, kind in kinds.items() if kind != most]:
        warn_left_out(f"step {step}", "it was measured otherwise than most")
        del parts[step]
    return parts


def warn_left_out(what: Path | str, why: str) -> None:
    """Warn that a file or a step is not part of the history."""
    warnings.warn(f"{what} is left out of the history: {why}", stacklevel=4)


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; ValueError with its name for one that is damaged."""
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # random bytes raise any kind of error
        first = str(error).split("\n")[0]
        raise ValueError(f"{file} cannot be read: {type(error).__name__}: {first}") from None


def numbered_files(folder: Path, kind: str, ending: str) -> dict[int, Path]:
    """The files kind-STEP.ending of a folder by their step; none of any other name."""
    name = re.compile(rf"{kind}-(\d{{8,}}){re.escape(ending)}")
    found = ((name.fullmatch(file.name), file) for file in folder.glob(f"{kind}-*"))
    return {int(match[1]): file for match, file in found if match}


def write_step(
    folder: Path, step: int, tokens: int, step_loss: Sequence[float], rest: dict[str, np.ndarray]
) -> None:
    """Write the arrays of one step, with its tokens and the losses since the step before."""
    counted = {"tokens": np.array(tokens), "step_loss": np.array(step_loss, dtype=np.float32)}
    save_arrays(folder / f"step-{step:08d}.npz", {**counted, **rest})


def save_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as one .npz file, which is whole or not there."""
    with replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
