"""What is put into a run, as data: an Edit puts other values into one place of one activation.

Zero, mean and resample ablation, patching from another run and frozen patterns are all edits; they
differ in where the values come from: `zeros`, `means`, `resampled`, or a cache as it is.
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
    """Values for one place: `source`, of the activation's own shape or with a batch of 1, replaces
    what is there, or is added to it, at a position (a destination, in scores and patterns) and in a
    head, or in all of them."""

    name: str
    "A hook point, in full or short with its layer."
    source: Float[Tensor, "..."]
    pos: int | None = None
    head: int | None = None
    add: bool = False
    "Add to what is there instead."


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
    """An Edit of ("z", 1), of "blocks.1.attn.hook_z", and so on, from a tensor or from what a cache
    has there; checked now. KeyError for an unknown hook point, ValueError for a place that is not
    in the activation."""
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
    """Nothing, in the shape of what the cache has: zero ablation."""
    return torch.zeros_like(cache[key][:1])


def means(cache: Cache, key: CacheKey, *, by_position: bool = True) -> Tensor:
    """The mean over the examples of a reference run, at each position or over all: mean ablation.
    Over all positions wants an activation [batch pos ...]."""
    mean = cache[key].mean(0, keepdim=True)
    return mean if by_position else mean.mean(1, keepdim=True).expand_as(mean)


def resampled(cache: Cache, key: CacheKey, *, seed: int = 0) -> Tensor:
    """The activation of another example in the place of each: resample ablation. ValueError for
    fewer than two examples."""
    values = cache[key]
    return values[other_examples(len(values), seed=seed).to(values.device)]


def other_examples(n: int, *, seed: int = 0) -> Int[Tensor, " example"]:
    """For each of n examples the number of another one, in a seeded order in which every example is
    used once. ValueError for fewer than two examples."""
    if n < 2:
        raise ValueError(f"resampling takes the values of other examples, and there is {n}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


def frozen_patterns(model: GPT, cache: Cache, layers: Iterable[int] | None = None) -> list[Edit]:
    """Edits that hold the patterns of all or some layers at those of a run."""
    return [edit(model, ("pattern", layer), cache)
            for layer in (range(model.cfg.n_layers) if layers is None else layers)]  # fmt: skip


def steer(
    direction: Float[Tensor, " d_model"], scale: float = 1.0, pos: int | None = None
) -> HookFn:
    """A hook that adds `scale` times a direction to an activation [batch pos d_model], at one
    position or at all."""

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
    """Where a run with these edits begins to differ: layer -1 is what comes before the blocks,
    n_layers what comes after them, or nowhere."""
    layers = [model.cfg.n_layers]
    for one in cell:
        if one.name.startswith("blocks."):
            layers.append(model.hook_dict[one.name].layer())
        elif not one.name.startswith("ln_final"):
            layers.append(-1)
    # At the end all positions are kept, since nothing there costs much.
    places = [None if one.name.startswith("ln_final") else one.pos for one in cell]
    return Start(min(layers), min((pos or 0 for pos in places), default=0))


@contextmanager
def edited(
    model: GPT,
    cells: Sequence[Cell],
    first: int = 0,
    then: Sequence[tuple[str, HookFn]] = (),
) -> Iterator[None]:
    """Within the `with`, in a run of its own, rows are those of the cells, one after the other,
    from a position on; the hooks of `then` come after the edits."""
    names = dict.fromkeys(one.name for cell in cells for one in cell)
    with model.for_one_run([*((name, _editing(cells, name, first)) for name in names), *then]):
        yield


def check_values(model: GPT, cells: Sequence[Cell], tokens: Tensor) -> None:
    """ValueError for values of other examples or positions than the run has."""
    batch, n = tokens.shape
    for one in (one for cell in cells for one in cell):
        (full,) = model.hook_names([one.name])
        shape, dim = list(one.source.shape), model.hook_dict[full].pos_dim
        if shape and (shape[0] not in (1, batch) or shape[dim : dim + 1] not in ([], [1], [n])):
            raise ValueError(f"the values for {full} are {shape}, and the run that they are put "
                             f"into has {batch} examples of {n} tokens")  # fmt: skip
        if one.pos is not None and not 0 <= one.pos < n:
            raise ValueError(f"{full} has {n} of pos, counted from 0; got pos={one.pos}")


def _editing(cells: Sequence[Cell], name: str, first: int = 0) -> HookFn:
    """A hook that makes the edits of each cell in its own part of the batch, which begins at
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
    """Where the heads of an activation lie, if it has any."""
    short = name.rpartition("hook_")[2]
    if short in ("attn_scores", "pattern"):
        return 1
    return 2 if short in ("q", "k", "v", "z", "result", "q_input", "k_input", "v_input") else None
