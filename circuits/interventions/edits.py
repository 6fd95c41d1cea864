"""Edits: an Edit is data that says which values to write at one place of an activation.

Zero, mean and resample ablation, patching from another run, and frozen patterns are all edits. They
differ in their values, which come from `zeros`, `means`, `resample`, or a cache.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.hooks import Cache, CacheKey, HookFn, HookPoint
from circuits.interventions.batches import Start
from circuits.model import GPT


@dataclass(frozen=True, eq=False)
class Edit:
    """New values for an activation, at one position (for scores and patterns: one destination) or
    at all positions, and in one head or in all heads. `source` has the shape of the whole
    activation; its batch may be 1. It replaces the values, or is added to them."""

    name: str
    "The name of a hook point."
    source: Float[Tensor, "..."]
    pos: int | None = None
    head: int | None = None
    add: bool = False
    "Add `source` to the values instead of replacing them."


PER_HEAD = ("q", "k", "v", "rot_q", "rot_k", "z", "result", "q_input", "k_input", "v_input")
"The short names of activations [batch pos head ...]."
Cell = Sequence[Edit]
"One experiment: the edits of one run."


def edit(
    model: GPT,
    key: CacheKey,
    source: Tensor | Cache,
    *,
    pos: int | None = None,
    head: int | None = None,
) -> Edit:
    """An Edit of the hook point `key`, such as ("z", 1), with the values of a tensor or of a cache.
    KeyError for an unknown hook point. ValueError for a position or head that does not exist."""
    name = Cache({}, model.cfg.n_layers).full_name(key)
    (full,) = model.hook_names([name])
    values = source[full] if isinstance(source, Cache) else source
    by_head = _head_dim(full)
    if head is not None and by_head is None:
        raise ValueError(f"{full} has no heads to choose from, so head={head} names nothing")
    for what, number, dim in (("pos", pos, model.hook_dict[full].pos_dim), ("head", head, by_head)):
        size = values.shape[dim] if dim is not None and dim < values.ndim else 0
        if number is not None and not 0 <= number < size:
            raise ValueError(f"{full} has {size} of {what}, counted from 0; got {what}={number}")
    return Edit(full, values, pos, head)


def zeros(cache: Cache, key: CacheKey) -> Tensor:
    """Zeros in the shape of an activation of the cache, with a batch of 1: for zero ablation."""
    return torch.zeros_like(cache[key][:1])


def means(cache: Cache, key: CacheKey, *, by_position: bool = True) -> Tensor:
    """The mean of an activation over the examples of a run, for mean ablation. It is taken at each
    position, or over all positions of an activation [batch pos ...]."""
    mean = cache[key].mean(0, keepdim=True)
    return mean if by_position else mean.mean(1, keepdim=True).expand_as(mean)


def resample(cache: Cache, key: CacheKey, *, seed: int = 0) -> Tensor:
    """For each example the activation of another example, for resample ablation. ValueError for
    fewer than two examples."""
    values = cache[key]
    return values[other_examples(len(values), seed=seed).to(values.device)]


def other_examples(n: int, *, seed: int = 0) -> Int[Tensor, " example"]:
    """For each of n examples the number of another example. Every example is used once, in an order
    drawn with `seed`. ValueError for fewer than two examples."""
    if n < 2:
        raise ValueError(f"resampling needs at least 2 examples, got {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


def frozen_patterns(model: GPT, cache: Cache, layers: Iterable[int] | None = None) -> list[Edit]:
    """Edits that keep the attention patterns of some or all layers as they are in a cache."""
    return [edit(model, ("pattern", layer), cache)
            for layer in (range(model.cfg.n_layers) if layers is None else layers)]  # fmt: skip


def steer(
    direction: Float[Tensor, " d_model"], scale: float = 1.0, pos: int | None = None
) -> HookFn:
    """A hook that adds `scale` times a direction to an activation [batch pos d_model], at one
    position or at all positions."""

    def add(activation: Tensor, hook: HookPoint) -> Tensor:
        moved = activation.clone()
        moved[:, slice(None) if pos is None else pos] += scale * direction
        return moved

    return add


def as_hooks(cell: Cell) -> list[tuple[str, HookFn]]:
    """The edits of one experiment as forward hooks, for run_with_hooks and run_with_cache."""
    names = dict.fromkeys(one.name for one in cell)
    return [(name, _editing([cell], name)) for name in names]


def start(model: GPT, cell: Cell) -> Start:
    """The first layer and position that these edits change (see Start). Without edits it is layer
    n_layers."""
    layers = [model.cfg.n_layers]
    for one in cell:
        if one.name.startswith("blocks."):
            layers.append(model.hook_dict[one.name].layer())
        elif not one.name.startswith("ln_final"):
            layers.append(-1)
    # After the blocks all positions are run again, since this costs little.
    places = [None if one.name.startswith("ln_final") else one.pos for one in cell]
    return Start(min(layers), min((pos or 0 for pos in places), default=0))


@contextmanager
def apply_edits(
    model: GPT,
    cells: Sequence[Cell],
    first: int = 0,
    then: Sequence[tuple[str, HookFn]] = (),
) -> Iterator[None]:
    """Within the `with`, a run gets the edits of each cell in its own part of the batch, cell after
    cell. The run begins at position `first`. The hooks of `then` are called after the edits."""
    names = dict.fromkeys(one.name for cell in cells for one in cell)
    with model.for_one_run([*((name, _editing(cells, name, first)) for name in names), *then]):
        yield


def check_values(model: GPT, cells: Sequence[Cell], tokens: Tensor) -> None:
    """ValueError for values with another number of examples or positions than the run has."""
    batch, n = tokens.shape
    for one in (one for cell in cells for one in cell):
        (full,) = model.hook_names([one.name])
        shape, dim = list(one.source.shape), model.hook_dict[full].pos_dim
        if shape and (shape[0] not in (1, batch) or shape[dim : dim + 1] not in ([], [1], [n])):
            raise ValueError(
                f"the values for {full} are {shape}, but the run has {batch} examples of {n} tokens"
            )
        if one.pos is not None and not 0 <= one.pos < n:
            raise ValueError(f"{full} has {n} of pos, counted from 0; got pos={one.pos}")


def _editing(cells: Sequence[Cell], name: str, first: int = 0) -> HookFn:
    """A hook that makes the edits of each cell in its own part of the batch. The run begins at
    position `first`."""
    edits = [(i, one) for i, cell in enumerate(cells) for one in cell if one.name == name]

    def make(activation: Tensor, hook: HookPoint) -> Tensor:
        changed = activation.clone()
        by_cell = changed.unflatten(0, (len(cells), -1))
        shape = list(by_cell.shape[1:])
        shape[hook.pos_dim] += first
        for number, one in edits:
            place = _index(one, hook, activation.ndim, first)
            values = one.source.expand(shape)[_index(one, hook, activation.ndim)].to(changed.dtype)
            by_cell[number][place] = by_cell[number][place] + values if one.add else values
        return changed

    return make


def _index(one: Edit, hook: HookPoint, ndim: int, first: int = 0) -> tuple[int | slice, ...]:
    index: list[int | slice] = [slice(None)] * ndim
    head_dim = _head_dim(one.name)
    if one.pos is not None:
        index[hook.pos_dim] = one.pos - first
    if one.head is not None and head_dim is not None:
        index[head_dim] = one.head
    return tuple(index)


def _head_dim(name: str) -> int | None:
    """The dim of the heads of an activation, or None if it has no heads."""
    short = name.rpartition("hook_")[2]
    if short in ("attn_scores", "pattern"):
        return 1
    return 2 if short in PER_HEAD else None
