"""Activation patching: put an activation of one run into another run, and see what changes.

Every result has the metric of each example, (..., example); a metric of the whole batch gives the
one example "all". Its coordinates `base` and `source` are the metric of the run that is patched and
of the run that the values come from. Patching the corrupted run (into="corrupted", the default)
shows which places are enough to restore the clean metric; patching the clean run shows which places
are needed. `recovered` and `summary` make plots of a result easy. (Names as in TransformerLens's
`patching`; Heimersheim and Nanda 2024, "How to use and interpret activation patching",
https://arxiv.org/abs/2404.15255)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from rich.progress import Progress
from torch import Tensor
from xarray import DataArray, Dataset

from analyses.causal.task import Into, Run, Task
from analyses.labelled import examples, head_coords, to_numpy
from circuits import distributed
from circuits.interventions import MEMORY, Cell, edit, sweep

Place = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
Activation = Literal["z", "q", "k", "v", "pattern"]


def positions(
    task: Task,
    *,
    place: Place = "resid_pre",
    into: Into = "corrupted",
    memory: int = MEMORY,
    progress: bool = False,
) -> DataArray:
    """The metric with one place patched at one layer and position, (layer, pos, example): the
    residual stream, or the output of the layer's heads or MLP. `memory` is the limit of a sweep in
    bytes; `progress` draws a bar on the terminal."""
    base, source = task.base_and_source(into)
    layers, n = range(task.model.cfg.n_layers), base.tokens.shape[1]
    cells = [[edit(task.model, (place, layer), source.cache, pos=pos)]
             for layer in layers for pos in range(n)]  # fmt: skip
    coords = {"layer": list(layers), "pos": list(range(n))}
    words = f"metric with {place} patched"
    values = swept(task, base, cells, words, memory, progress)
    return named(values, base, source, coords, "patched", words)


def heads(
    task: Task,
    *,
    part: Activation = "z",
    by_position: bool = False,
    into: Into = "corrupted",
    memory: int = MEMORY,
    progress: bool = False,
) -> DataArray:
    """The metric with one head's z, q, k, v or pattern patched, (layer, head, example). With
    `by_position` it is patched at one position at a time (one destination, for patterns), (layer,
    head, pos, example). `memory` and `progress` are as in `positions`."""
    base, source = task.base_and_source(into)
    n_layers, n_heads = task.model.cfg.n_layers, task.model.cfg.n_heads
    coords, places = head_coords(n_layers, n_heads), [None]
    if by_position:
        coords["pos"] = places = list(range(base.tokens.shape[1]))
    cells = [
        [edit(task.model, (part, layer), source.cache, head=head, pos=pos)]
        for layer in range(n_layers)
        for head in range(n_heads)
        for pos in places
    ]
    words = f"metric with a head's {part} patched"
    values = swept(task, base, cells, words, memory, progress)
    return named(values, base, source, coords, "patched", words)


def recovered(result: DataArray) -> DataArray:
    """The share of the difference between `base` and `source` that each patch makes up: 0 none of
    it, 1 all of it; of the means over examples. ValueError where both runs have the same metric."""
    base, source = float(result.base.mean()), float(result.source.mean())
    if np.isclose(base, source, rtol=1e-9, atol=1e-12):
        raise ValueError(f"both runs have the metric {base:.4g}: there is nothing to recover")
    share = (result.mean("example") - base) / (source - base)
    words = f"share recovered: {result.attrs['long_name']}"
    return share.rename("recovered").assign_attrs(long_name=words, base=base, source=source)


def summary(result: DataArray, *, permutations: int = 1000, seed: int = 0) -> Dataset:
    """Over examples: the mean `change` of the metric from `base`, its standard `error`, and two p
    values of a two-sided sign-flip test.

    `p` is how often a change as large comes out for this cell when the sign of each example is
    drawn at random. `p_max` is how often the largest change of all cells, each in its own standard
    errors, comes out as large: use it when you look for the cells that stand out, for among many
    cells some have a small `p` by luck. (Westfall and Young 1993, "Resampling-based multiple
    testing"; maximum statistic)
    """
    change = (result - result.base).transpose("example", ...)
    n = change.sizes["example"]
    if n < 2:
        raise ValueError(f"an error wants at least two examples, got {n}")
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, n))
    mean = change.mean("example")
    drawn = np.abs(np.tensordot(signs, change.values, 1)) / n
    scale = np.sqrt((change.values**2).mean(0))  # the same under all signs
    scale = np.where(scale > 0, scale, np.inf)
    largest = (drawn / scale).reshape(permutations, -1).max(1, initial=0.0)
    enough = 1 - 1e-12  # a draw that equals the data counts
    as_large = (drawn >= np.abs(mean.values) * enough).sum(0)
    all_as_large = (largest >= (np.abs(mean.values) / scale * enough)[..., None]).sum(-1)
    p, p_max = (mean.copy(data=(count + 1) / (permutations + 1))
                for count in (as_large, all_as_large))  # fmt: skip
    error = change.std("example", ddof=1) / np.sqrt(n)
    values = {"change": mean, "error": error, "p": p, "p_max": p_max}
    return Dataset(values, attrs={"examples": n})


def named(
    values: Float[Tensor, "*cell example"],
    base: Run,
    source: Run,
    coords: Mapping[str, Any],
    name: str,
    words: str,
) -> DataArray:
    """The metric of patched runs over `coords` with layer, head, pos or neuron, (..., example),
    with the metric of both runs as coordinates."""
    dims = [dim for dim in ("layer", "head", "pos", "neuron") if dim in coords]
    ends = {run: ("example", to_numpy(side.value)) for run, side in
            (("base", base), ("source", source))}  # fmt: skip
    return DataArray(
        to_numpy(values.reshape(*(len(coords[dim]) for dim in dims), -1)),
        dims=(*dims, "example"),
        coords={**coords, "example": examples(base.value, base.tokens), **ends},
        name=name,
        attrs={"long_name": words},
    )


def swept(
    task: Task,
    base: Run,
    cells: Sequence[Cell],
    words: str,
    memory: int = MEMORY,
    progress: bool = False,
) -> Float[Tensor, "cell example"]:
    """The metric of each cell, put into one run of a task; `words` stand beside the bar."""
    with progress_bar(len(cells), words, progress) as advance:
        return sweep(
            task.model, base.tokens, cells, task.metric, at=task.at, memory=memory, progress=advance
        )


@contextmanager
def progress_bar(total: int, words: str, show: bool) -> Iterator[Callable[[int], Any]]:
    """A function that a sweep tells how many cells are done. With `show`, a bar on the terminal
    shows the number; in a process group one process draws the bar."""
    if not show:
        yield lambda done: None
        return
    with Progress(disable=distributed.rank() > 0) as bar:
        mine = range(distributed.rank(), total, distributed.world())
        yield partial(bar.advance, bar.add_task(words, total=len(mine)))
