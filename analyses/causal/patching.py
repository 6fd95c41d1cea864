"""Activation patching: put what another run had into one place, and see what it changes.

Every result has the metric of each example, (..., example), or of the batch, the one example "all",
where the metric gives one number for it; and as coordinates `base`, the run that
is patched, and `source`, the run that the values come from: clean into corrupted to see what is
enough, corrupted into clean to see what is needed. `recovered` and `summary` make of it what one
plots. (Names as in TransformerLens's `patching`; Heimersheim and Nanda 2024, "How to use and
interpret activation patching", https://arxiv.org/abs/2404.15255)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import Progress
from torch import Tensor
from xarray import DataArray, Dataset

from analyses.labelled import examples, head_coords, to_numpy, tokens_of
from circuits import distributed
from circuits.decomposition import logits_at, same_run, stream
from circuits.hooks import Cache
from circuits.interventions import Cell, Metric, edit, judged, sweep
from circuits.model import GPT, Ids

Tokens = Int[Tensor, "batch pos"]
Place = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
Part = Literal["z", "q", "k", "v", "pattern"]


def positions(
    model: GPT,
    tokens: Ids | str,
    source: Cache,
    metric: Metric,
    *,
    place: Place = "resid_pre",
    at: int | Int[Tensor, " batch"] | None = None,
    **how: Any,
) -> DataArray:
    """The metric with the stream, or what heads or MLPs write to it, taken from `source` at one
    layer and position: (layer, pos, example). `at` and `how` are those of interventions.sweep;
    bar=True draws how far it is."""
    tokens = tokens_of(model, tokens)
    n = tokens.shape[1]
    layers = range(model.cfg.n_layers)
    cells = [[edit(model, (place, layer), source, pos=pos)] for layer in layers for pos in range(n)]
    coords = {"layer": list(layers), "pos": list(range(n))}
    words = f"metric with {place} patched"
    return _swept(model, tokens, source, cells, metric, at, how, coords, words)


def heads(
    model: GPT,
    tokens: Ids | str,
    source: Cache,
    metric: Metric,
    *,
    part: Part = "z",
    by_position: bool = False,
    at: int | Int[Tensor, " batch"] | None = None,
    **how: Any,
) -> DataArray:
    """The metric with one head's z, q, k, v or pattern taken from `source`, at all positions, or at
    one each (destinations, for patterns): (layer, head, example) or (layer, head, pos, example).
    `at` and `how` are as in `positions`."""
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    tokens = tokens_of(model, tokens)
    n = tokens.shape[1]
    places: Sequence[int | None] = range(n) if by_position else [None]
    cells = [
        [edit(model, (part, layer), source, head=head, pos=pos)]
        for layer in range(n_layers) for head in range(n_heads) for pos in places
    ]  # fmt: skip
    coords = head_coords(n_layers, n_heads) | ({"pos": list(range(n))} if by_position else {})
    words = f"metric with a head's {part} patched"
    return _swept(model, tokens, source, cells, metric, at, how, coords, words)


def recovered(result: DataArray) -> DataArray:
    """How far the patch goes from `base` to `source`: 0 nothing, 1 all of it; of the means over
    examples. ValueError where both runs have the same metric."""
    base, source = float(result.base.mean()), float(result.source.mean())
    if np.isclose(base, source, rtol=1e-9, atol=1e-12):
        raise ValueError(f"both runs have the metric {base:.4g}: there is nothing to recover")
    share = (result.mean("example") - base) / (source - base)
    words = f"share recovered: {result.attrs['long_name']}"
    return share.rename("recovered").assign_attrs(long_name=words, base=base, source=source)


def summary(result: DataArray, *, permutations: int = 1000, seed: int = 0) -> Dataset:
    """Over examples: `change` of the metric from `base`, its standard `error`, and `p`, how often
    a change as large comes out when each example's sign is drawn at random (two-sided)."""
    change = (result - result.base).transpose("example", ...)
    n = change.sizes["example"]
    if n < 2:
        raise ValueError(f"an error wants at least two examples, got {n}")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, n))
    drawn = np.abs(np.tensordot(signs, change.values, 1)) / n
    mean = change.mean("example")
    as_large = (drawn >= np.abs(mean.values) * (1 - 1e-12)).sum(0)
    p = mean.copy(data=(as_large + 1) / (permutations + 1))
    error = change.std("example", ddof=1) / np.sqrt(n)
    return Dataset({"change": mean, "error": error, "p": p}, attrs={"examples": n})


def named(
    values: Float[Tensor, "*place example"],
    base: Float[Tensor, "example"],
    source: Float[Tensor, "example"],
    tokens: Tokens,
    coords: Mapping[str, Any],
    name: str,
    words: str,
) -> DataArray:
    """A metric of patched runs on some tokens, (..., example), over `coords` with layer, head, pos
    or neuron, and the metric of both runs beside it."""
    dims = [dim for dim in ("layer", "head", "pos", "neuron") if dim in coords]
    shape = [len(coords[dim]) for dim in dims]
    ends = {"base": ("example", to_numpy(base)), "source": ("example", to_numpy(source))}
    return DataArray(
        to_numpy(values.reshape(*shape, -1)),
        dims=(*dims, "example"),
        coords={**coords, "example": examples(base, tokens), **ends},
        name=name,
        attrs={"long_name": words},
    )


@contextmanager
def progress_bar(total: int, words: str, how: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What to pass on to a sweep of `how`, with its `bar` made a `progress` that a bar on the
    terminal shows while the block lasts; one process of a group draws it."""
    rest = {name: value for name, value in how.items() if name != "bar"}
    if not how.get("bar"):
        yield rest
        return
    with Progress(disable=distributed.rank() > 0) as bar:
        task = bar.add_task(words, total=len(range(distributed.rank(), total, distributed.world())))
        yield {**rest, "progress": partial(bar.advance, task)}


def _swept(
    model: GPT,
    tokens: Tokens,
    source: Cache,
    cells: Sequence[Cell],
    metric: Metric,
    at: Any,
    how: dict[str, Any],
    coords: dict[str, Any],
    words: str,
) -> DataArray:
    """The metric of each cell, in the shape of `coords`, the dims in front of the examples."""
    same_run(model, source)
    there, own = list(source["embed"].shape[:2]), list(tokens.shape)
    if there != own:
        raise ValueError(f"the source is a run on tokens {there}, and those to patch are {own}")
    if not cells:
        raise ValueError("there is nothing to patch: the model has no layers")
    with torch.no_grad():
        final = stream(model, source)
        logits = model.unembed(model.ln_final(final)) if at is None else logits_at(model, final, at)
        with progress_bar(len(cells) + 1, words, how) as how:
            *values, base = sweep(model, tokens, [*cells, []], metric, at=at, **how)
        ends = base, judged(metric, logits)
        return named(torch.stack(values), *ends, tokens, coords, "patched", words)
