"""Training histories: the scores of a model at about 150 steps of its training.

`circuits train` records a history (analyses/history/recording.py), and models that ship have one.
(Olsson et al. 2022, sections "Definitions", "Argument 1" and "Argument 3",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray
from xarray import DataArray, Dataset

from analyses.causal import ablation
from analyses.heads import attention
from analyses.history import in_context
from analyses.history.step_files import (
    FILE,
    arrays_of,
    directions,
    numbered_files,
    stack_steps,
)
from analyses.labelled import head_coords
from circuits.files import read_text
from circuits.io import folder_of, models
from circuits.training import Record

HEADS = {
    "prefix_matching": "attention to what followed the token before",
    "copying": "raise of the attended token, of all in the sample",
    "previous_token": "attention to the token before",
    "qk_trace": "trace of the QK circuit composed with previous-token heads",
}
ABLATED = {
    "ablated_loss": "rise of the loss without the head",
    "ablated_in_context": "rise of the in-context score without the head",
    "ablated_on": "rise of the losses without the head, on their principal directions",
}
OPTIONAL = {
    "window_loss": "window",
    "window_score": "window",
    "window_gap": "window",
    "story_loss": "story_token",
    "current_token": "layer head",
}
"What later versions recorded, and its dims beside the step."

LEAST_FALL, LONGEST = 0.15, 1 / 3
"""A phase change lowers the in-context score by more than LEAST_FALL nats (the paper's models are
above -0.15 before it), within at most the share LONGEST of the training."""


class PhaseChange(NamedTuple):
    """The two recorded steps between which the in-context score fell, and the score at each, in
    nats."""

    start: int
    end: int
    before: float
    after: float


def has_history(name: str | Path) -> bool:
    """Whether `history` can read a history of a model; KeyError if there is no such model."""
    folder = Path(name) if (Path(name) / "history").is_dir() else folder_of(name)
    return (folder / FILE).is_file() or bool(numbered_files(folder / "history", "step", ".npz"))


def history(name: str | Path) -> Dataset:
    """The measurements of a model during its training: a model that ships, or a folder of
    `circuits train`, also of an unfinished run.

    (step): train_loss (mean since the last recorded step), held_out, in_context_score;
    (step, index): loss_by_index; (step, window): window_loss and window_score, the loss and the
    in-context score of each evaluation window, and window_gap, the loss at three quarters of the
    context less the loss at one quarter; (step, story_token): story_loss; (step, layer,
    head): prefix_matching, copying, previous_token, current_token, qk_trace; (step, layer, head,
    ablation): ablated_loss and ablated_in_context, the rise by ablation of the head; (step, token):
    token_loss, the loss of fixed tokens of the evaluation set; loss_on and ablated_on
    (..., direction), see `attribution`; (train_step): step_loss, the loss of every step. Older
    histories lack the measurements in OPTIONAL.
    Losses are in nats; train_loss and step_loss are NaN where the file of a step is damaged.
    KeyError without a history. ValueError names a damaged history.npz. A damaged step of an
    unfinished run is left out, with a warning.
    """
    folder = Path(name) if (Path(name) / "history").is_dir() else folder_of(name)
    if (folder / FILE).is_file():
        source, arrays = folder / FILE, arrays_of(folder / FILE)
    elif numbered_files(folder / "history", "step", ".npz"):
        source, arrays = folder / "history", stack_steps(folder / "history")
    else:
        there = [model for model in models() if (folder_of(model) / FILE).is_file()]
        raise KeyError(f"{str(name)!r} has no history; of the models that ship {there} have one")
    if "prefix_matching" not in arrays and "step_loss" in arrays:
        raise KeyError(
            f"{str(name)!r} was not measured while it trained, only its losses were kept"
        )
    try:
        if len(arrays["step_loss"]) != arrays["step"][-1]:
            raise ValueError(f"{len(arrays['step_loss'])} losses of {arrays['step'][-1]} steps")
        return _labelled(arrays, str(name))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        first = str(error).split("\n")[0]
        raise ValueError(f"{source} is not a whole history: {first}") from None


def phase_change(history: Dataset) -> PhaseChange | None:
    """The steps between which in-context learning formed, or None without a sudden fall.

    A curve that is constant, then linear, then constant is fitted to the in-context score for each
    pair of recorded steps, by least squares. The weight of a record is the number of steps around
    it. The best pair is a phase change if the curve falls by more than LEAST_FALL and by more than
    four times the root mean square error, within at most LONGEST of the training. (Olsson et al.
    2022 choose the window by eye from the score's derivative.)
    """
    step = history.step.values.astype(float)
    if len(step) < 8:
        return None
    score = history.in_context_score.values.astype(float)
    weight = np.gradient(step) / (step[-1] - step[0])
    first, last = np.triu_indices(len(step), 1)
    ramp = np.clip((step - step[first, None]) / (step[last] - step[first])[:, None], 0, 1)
    ramp -= (ramp @ weight)[:, None]  # pair step
    level = score @ weight
    slope = ramp @ (weight * (score - level)) / (ramp**2 @ weight)
    missed = ((score - level - slope[:, None] * ramp) ** 2) @ weight
    best = int(missed.argmin())
    start, end = (int(step[at[best]]) for at in (first, last))
    fall, scatter = -slope[best], np.sqrt(missed[best])
    if fall <= max(LEAST_FALL, 4 * scatter) or end - start > LONGEST * step[-1]:
        return None
    before, after = (float(level + slope[best] * ramp[best, at]) for at in (0, -1))
    return PhaseChange(start, end, before, after)


def around(values: DataArray, step: int, near: int = 2) -> DataArray:
    """The mean over the record nearest to a step and `near` records on either side, with less
    noise."""
    at = int(np.abs(values.step.values - step).argmin())
    return values.isel(step=slice(max(0, at - near), at + near + 1)).mean("step")


def loss_speed(history: Dataset, half: float = 0.15) -> DataArray:
    """The derivative of the held-out loss by ln(tokens), (step), in nats: the slope between
    ln(tokens) - `half` and ln(tokens) + `half`; NaN if the run does not reach that far."""
    seen = history.isel(step=slice(1, None))
    at = np.log(seen.tokens.values.astype(float))
    ends = [np.interp(at + side, at, seen.held_out, np.nan, np.nan) for side in (-half, half)]
    words = {"long_name": "dLoss / dln(tokens)", "units": "nats"}
    return seen.held_out.copy(data=(ends[1] - ends[0]) / (2 * half)).rename("speed").assign_attrs(
        words)  # fmt: skip


def trajectories(losses: Sequence[DataArray]) -> list[DataArray]:
    """The token losses (step, token) of each run, projected on the two principal directions of all
    runs together: (step, component), in nats per token.

    attrs["explained"] is the share of the variance in each direction. All runs must be measured on
    the same tokens; ValueError if the numbers of tokens differ. (Olsson et al. 2022, "per-token
    losses".)
    """
    sizes = [one.sizes["token"] for one in losses]
    if len(set(sizes)) != 1:
        raise ValueError(f"all runs need losses of the same tokens, got {sizes} tokens")
    every = np.concatenate([one.values for one in losses])
    apart = (every - every.mean(0)).astype(float)
    square, along = np.linalg.eigh(apart @ apart.T)  # far fewer records than tokens
    points = (along * np.sqrt(square.clip(0)))[:, :-3:-1] / np.sqrt(sizes[0])
    explained = (square[:-3:-1] / square.sum()).tolist()
    words = {"long_name": "token losses", "units": "nats per token", "explained": explained}
    parts = np.split(points, np.cumsum([one.sizes["step"] for one in losses])[:-1])
    return [
        DataArray(part, dims=("step", "component"), coords={"step": one.step}, attrs=words)
        for part, one in zip(parts, losses, strict=True)
    ]


def roles(
    history: Dataset, current: DataArray | None = None, threshold: float = attention.THRESHOLD
) -> DataArray:
    """The role of each head at the end, (layer, head): "induction" if its prefix matching is above
    the threshold, else "previous token" or "current token", by the larger of its attention to both
    if that is above the threshold, else "-". `current` is the attention to the current token at the
    end, where the history did not record it; without either no head has this role."""
    end = history.isel(step=-1)
    there = end.current_token if "current_token" in end else 0 * end.previous_token
    own = (there if current is None else current).values
    seeks, before = end.prefix_matching > threshold, end.previous_token
    looks = np.maximum(before, own) > threshold
    other = xarray.where(before >= own, "previous token", "current token")
    named = xarray.where(seeks, "induction", xarray.where(looks, other, "-"))
    return named.drop_vars("step", errors="ignore").rename("role").assign_attrs(threshold=threshold)


def attribution(history: Dataset, start: int, end: int) -> DataArray:
    """The effect of ablating a head along the change of the token losses between two steps: (step,
    layer, head, ablation), in nats per token. It is negative for a head whose ablation undoes the
    change.

    It is the dot product of two vectors, divided by the root of the number of tokens: the rise of
    the token losses by ablation, and the unit vector of their change from `start` to `end`. Both
    are stored on the principal directions of the losses. (Olsson et al. 2022, "before-and-after
    vector".) KeyError for a step that was not recorded.
    """
    recorded = history.step.values.tolist()
    for step in (start, end):
        if step not in recorded:
            near = min(recorded, key=lambda other: abs(other - step))
            raise KeyError(f"step {step} was not recorded; the nearest recorded step is {near}")
    if start == end:
        raise ValueError(f"a change needs two different steps, and both are {start}")
    on, losses = (
        (values.sel(step=end) - values.sel(step=start)).drop_vars("step", errors="ignore")
        for values in (history.loss_on, history.token_loss)
    )
    size = np.sqrt(float((losses**2).sum()) * history.sizes["token"])
    named = (history.ablated_on * on).sum("direction") / size
    words = f"rise of the loss without the head, along the change from step {start} to {end}"
    return named.rename("attribution").assign_attrs(units="nats", long_name=words)


def formed(history: Dataset, threshold: float = 0.3) -> DataArray:
    """The first step at which a head's prefix matching is above `threshold`, (layer, head); NaN if
    it never is."""
    above = history.prefix_matching > threshold
    first = history.step[above.argmax("step")].where(above.any("step"))
    return first.drop_vars("step").rename("formed").assign_attrs(threshold=threshold, units="steps")


def last_record(name: str | Path) -> Record:
    """The last record in a model's log.jsonl; empty without a log. ValueError for a damaged log."""
    log = folder_of(name) / "log.jsonl"
    if not log.is_file():
        return {}
    try:
        return dict(json.loads(read_text(log).splitlines()[-1]))
    except (ValueError, IndexError, TypeError) as error:
        raise ValueError(f"{log} cannot be read: {error}") from None


def _labelled(arrays: dict[str, np.ndarray], source: str) -> Dataset:
    if "ablated_along" in arrays:
        arrays = {**arrays, **_on_directions(arrays)}
    steps, step_loss = arrays["step"], arrays["step_loss"].astype(np.float32)
    means = [step_loss[a:b].mean() if b > a else np.nan for a, b in pairwise([0, *steps.tolist()])]

    def over(dims: str, values: np.ndarray, words: str, **attrs: Any) -> DataArray:
        said = {"long_name": words, **attrs}
        return DataArray(values.astype(np.float32), dims=dims.split(), attrs=said)

    named = {
        "train_loss": over("step", np.array(means), "training loss", units="nats"),
        "step_loss": over("train_step", step_loss, "training loss", units="nats"),
        "held_out": over("step", arrays["held_out"], "held-out loss", units="nats"),
    }
    for name, dims in (("loss_by_index", "step index"), ("token_loss", "step token")):
        named[name] = over(dims, arrays[name], "held-out loss", units="nats")
    for name, words in HEADS.items():
        bounded = {} if name == "qk_trace" else {"bounds": (0.0, 1.0)}
        named[name] = over("step layer head", arrays[name], words, **bounded)
    for name, words in ABLATED.items():
        dims = "step layer head ablation" + (" direction" if name == "ablated_on" else "")
        named[name] = over(dims, arrays[name], words)
    named["loss_on"] = over("step direction", arrays["loss_on"], "loss less the last", units="nats")
    for name, dim in OPTIONAL.items():
        if name in arrays:
            unit = {} if name == "current_token" else {"units": "nats"}
            named[name] = over(f"step {dim}", arrays[name], name.replace("_", " "), **unit)
    coords = {
        "step": steps,
        "tokens": ("step", arrays["tokens"]),
        "index": np.arange(1, arrays["loss_by_index"].shape[1] + 1),
        "train_step": np.arange(1, len(step_loss) + 1),
        **head_coords(*arrays["prefix_matching"].shape[1:]),
        "ablation": list(ablation.KINDS),
    }
    data = xarray.Dataset(named, coords, {"source": source})
    return data.assign(in_context_score=in_context.score(data.loss_by_index))


def _on_directions(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`loss_on` and `ablated_on` of the oldest models that ship. Their files hold products a . C^T
    of ablation effects a with the changes C of the losses at all steps. A direction is C^T times a
    combination of steps, so the effect along it is the same combination of the products."""
    on, axes = directions(arrays["token_loss"], None)
    change = arrays["token_loss"].astype(np.float64) - arrays["token_loss"][-1]
    combined = np.linalg.lstsq(change.T, axes.astype(np.float64), rcond=None)[0]
    along = arrays["ablated_along"].astype(np.float64) * change.shape[1]
    along = along - along[..., -1:]
    return {"loss_on": on, "ablated_on": along @ combined}
