"""Attribution patching: a first-order estimate of patching, for all places by one gradient.

    metric(patched) ~ metric(base) + (source - base) . d metric / d activation,

summed over the patched place. Results have the shapes, names and coordinates of `patching`, so
`patching.recovered` and `patching.summary` read them, and estimate and truth can be compared. The
estimate is good for small changes. It can be far off where one patch changes much, as in the
stream, and where the base run is saturated, as sharp attention patterns are. (Nanda 2023,
"Attribution patching: activation patching at industrial scale"; Syed et al. 2023,
https://arxiv.org/abs/2310.10348)
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses.causal.patching import Activation, Place, named
from analyses.causal.task import Into, Run, Task
from analyses.labelled import head_coords
from circuits.interventions import slopes


def positions(task: Task, *, place: Place = "resid_pre", into: Into = "corrupted") -> DataArray:
    """The estimate of patching.positions, (layer, pos, example)."""
    base, source = task.base_and_source(into)
    change = _changes(task, base, source, f"hook_{place}")
    coords = {"layer": range(task.model.cfg.n_layers), "pos": range(base.tokens.shape[1])}
    values = change.sum(-1).movedim(1, -1)
    return _estimated(base, source, values, coords, f"metric with {place} patched")


def heads(
    task: Task,
    *,
    part: Activation = "z",
    by_position: bool = False,
    into: Into = "corrupted",
) -> DataArray:
    """The estimate of patching.heads, (layer, head, example) or (layer, head, pos, example)."""
    base, source = task.base_and_source(into)
    change = _changes(task, base, source, f"attn.hook_{part}").sum(-1)
    # [layer batch dest head] of q, k, v, z, and [layer batch head dest] of patterns
    values = change.permute(0, 2, 3, 1) if part == "pattern" else change.permute(0, 3, 2, 1)
    coords = head_coords(task.model.cfg.n_layers, task.model.cfg.n_heads)
    if by_position:
        coords["pos"] = range(base.tokens.shape[1])
    else:
        values = values.sum(2)
    return _estimated(base, source, values, coords, f"metric with a head's {part} patched")


def neurons(task: Task, *, into: Into = "corrupted") -> DataArray:
    """The estimate of the metric with one neuron's activation patched at all positions, (layer,
    neuron, example). ValueError for a model without MLPs."""
    cfg = task.model.cfg
    if cfg.d_mlp is None:
        raise ValueError("there are no neurons: the model is attention-only")
    base, source = task.base_and_source(into)
    values = _changes(task, base, source, "mlp.hook_post").sum(2).movedim(1, -1)
    coords = {"layer": range(cfg.n_layers), "neuron": range(cfg.d_mlp)}
    return _estimated(base, source, values, coords, "metric with a neuron patched")


def _changes(task: Task, base: Run, source: Run, point: str) -> Float[Tensor, "layer batch ..."]:
    """(source - base) times the slope, at one hook point of every layer."""
    names = [f"blocks.{layer}.{point}" for layer in range(task.model.cfg.n_layers)]
    slope = slopes(task.model, base.tokens, names, task.metric, task.at)
    return torch.stack([(source.cache[name] - base.cache[name]) * slope[name] for name in names])


def _estimated(
    base: Run,
    source: Run,
    change: Float[Tensor, "... batch"],
    coords: dict[str, Any],
    words: str,
) -> DataArray:
    """The metric of the base run plus its estimated change."""
    if len(base.value) < len(base.tokens):  # one metric for the batch, which all examples change
        change = change.sum(-1, keepdim=True)
    return named(
        base.value + change, base, source, coords, "attributed", f"estimate of the {words}"
    )
