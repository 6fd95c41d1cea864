"""Attribution patching: what patching would do, to first order, for all places by one gradient.

    metric(patched) ~ metric(base) + (source - base) . d metric / d activation,

summed over the patched place. Results have the shapes, names and coordinates of `patching`, so that
`patching.recovered` and `patching.summary` read them, and estimate lies beside truth. It is good
for small changes, and can be far off where one patch changes much, as in the stream, or where the
base run is saturated, as sharp attention patterns are. (Nanda 2023, "Attribution patching:
activation patching at industrial scale"; Syed et al. 2023, https://arxiv.org/abs/2310.10348)
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.causal.patching import Part, Place, named
from analyses.labelled import head_coords, tokens_of
from circuits.decomposition import logits_at, same_run, stream
from circuits.hooks import Cache
from circuits.interventions import Metric, judged, slopes
from circuits.model import GPT, Ids

Tokens = Int[Tensor, "batch pos"]
At = int | Int[Tensor, " batch"]


def positions(
    model: GPT,
    tokens: Ids | str,
    source: Cache,
    metric: Metric,
    *,
    place: Place = "resid_pre",
    at: At = -1,
) -> DataArray:
    """Estimate of patching.positions, (layer, pos, example)."""
    tokens = tokens_of(model, tokens)
    change = _changes(model, tokens, source, metric, f"hook_{place}", at)
    coords = {"layer": range(model.cfg.n_layers), "pos": range(tokens.shape[1])}
    values = change.sum(-1).movedim(1, -1)
    return _estimated(
        model, source, tokens, metric, at, values, coords, f"metric with {place} patched"
    )


def heads(
    model: GPT,
    tokens: Ids | str,
    source: Cache,
    metric: Metric,
    *,
    part: Part = "z",
    by_position: bool = False,
    at: At = -1,
) -> DataArray:
    """Estimate of patching.heads, (layer, head, example) or (layer, head, pos, example)."""
    tokens = tokens_of(model, tokens)
    change = _changes(model, tokens, source, metric, f"attn.hook_{part}", at).sum(-1)
    # [layer batch dest head] of q, k, v, z, and [layer batch head dest] of patterns
    values = change.permute(0, 2, 3, 1) if part == "pattern" else change.permute(0, 3, 2, 1)
    coords = head_coords(model.cfg.n_layers, model.cfg.n_heads)
    if by_position:
        coords["pos"] = range(tokens.shape[1])
    else:
        values = values.sum(2)
    words = f"metric with a head's {part} patched"
    return _estimated(model, source, tokens, metric, at, values, coords, words)


def neurons(
    model: GPT, tokens: Ids | str, source: Cache, metric: Metric, *, at: At = -1
) -> DataArray:
    """Estimate of the metric with one neuron's activation patched at all positions, (layer, neuron,
    example). ValueError for a model without MLPs."""
    if model.cfg.d_mlp is None:
        raise ValueError("there are no neurons: the model is attention-only")
    tokens = tokens_of(model, tokens)
    values = _changes(model, tokens, source, metric, "mlp.hook_post", at).sum(2).movedim(1, -1)
    coords = {"layer": range(model.cfg.n_layers), "neuron": range(model.cfg.d_mlp)}
    words = "metric with a neuron patched"
    return _estimated(model, source, tokens, metric, at, values, coords, words)


def _changes(
    model: GPT, tokens: Tokens, source: Cache, metric: Metric, point: str, at: At
) -> Float[Tensor, "layer batch ..."]:
    """(source - base) times the slope, at one hook point of every layer."""
    same_run(model, source)
    if not model.cfg.n_layers:
        raise ValueError("there is nothing to patch: the model has no layers")
    names = [f"blocks.{layer}.{point}" for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        base = model.run_with_cache(tokens, None, names_filter=names)[1]
    there, own = (list(one[names[0]].shape) for one in (source, base))
    if there != own:
        raise ValueError(f"the source has {names[0]} of shape {there}, the run to patch {own}")
    slope = slopes(model, tokens, names, metric, at)
    return torch.stack([(source[name] - base[name]) * slope[name] for name in names])


def _estimated(
    model: GPT,
    source: Cache,
    tokens: Tokens,
    metric: Metric,
    at: At,
    change: Float[Tensor, "... batch"],
    coords: dict[str, Any],
    words: str,
) -> DataArray:
    """The metric of the base run and its estimated change, with `base` and `source` beside them."""
    with torch.no_grad():
        final = model(tokens, stop_at_layer=model.cfg.n_layers)
        base = judged(metric, logits_at(model, final, at))
        there = judged(metric, logits_at(model, stream(model, source), at))
    if len(base) < len(tokens):  # one metric for the batch, which all its examples change
        change = change.sum(-1, keepdim=True)
    words = f"estimate of the {words}"
    return named(base + change, base, there, tokens, coords, "attributed", words)
