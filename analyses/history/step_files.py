"""The files of a history: one .npz file for each recorded step, and one for all steps."""

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
    """All recorded steps of a folder, stacked to one array for each measurement; ValueError if
    there are none.

    A step that is damaged, or measured on other rows than most steps, is left out, and a warning
    names it; so is a file that is not a step. The losses of training steps in no file are NaN.

    The effects of ablation on single tokens' losses are kept only on the principal directions, see
    `directions`: `ablated_on` [step layer head ablation direction] is the rise by ablation, and
    `loss_on` [step direction] is the loss minus the loss at the last step.
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
    """The token losses minus the losses at the last step, projected on the principal directions of
    these differences, and the directions, which are orthonormal. A few directions hold nearly all
    of the variance; with count=None all directions are kept."""
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
    """The steps whose arrays have the same names, shapes and dtypes as in most steps."""
    kinds = {step: tuple(sorted((key, value.shape, value.dtype.str) for key, value in part.items()
                                if key != "step_loss"))
             for step, part in parts.items()}  # fmt: skip
    most = Counter(kinds.values()).most_common(1)[0][0] if kinds else ()
    for step in [step for step, kind in kinds.items() if kind != most]:
        warn_left_out(f"step {step}", "its arrays differ from the arrays of most steps")
        del parts[step]
    return parts


def warn_left_out(what: Path | str, why: str) -> None:
    """Warn that a file or a step is left out of the history."""
    warnings.warn(f"{what} is left out of the history: {why}", stacklevel=4)


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; ValueError names a damaged file."""
    try:
        with file.open("rb") as opened, np.load(opened) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except Exception as error:  # random bytes raise any kind of error
        first = str(error).split("\n")[0]
        raise ValueError(f"{file} cannot be read: {type(error).__name__}: {first}") from None


def numbered_files(folder: Path, kind: str, ending: str) -> dict[int, Path]:
    """The files of a folder with a name kind-STEP and this ending, by step."""
    name = re.compile(rf"{kind}-(\d{{8,}}){re.escape(ending)}")
    found = ((name.fullmatch(file.name), file) for file in folder.glob(f"{kind}-*"))
    return {int(match[1]): file for match, file in found if match}


def write_step(
    folder: Path, step: int, tokens: int, step_loss: Sequence[float], rest: dict[str, np.ndarray]
) -> None:
    """Write the arrays of one step, with its number of tokens and the losses since the last
    recorded step."""
    counted = {"tokens": np.array(tokens), "step_loss": np.array(step_loss, dtype=np.float32)}
    save_arrays(folder / f"step-{step:08d}.npz", {**counted, **rest})


def save_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as one .npz file, which is never incomplete."""
    with replacing(file) as part, part.open("wb") as opened:
        np.savez_compressed(opened, allow_pickle=False, **arrays)
