"""What is done to a run, as data: an Edit puts other values into one place of one activation, and
`sweep` runs many experiments together, with the numbers of one run each.

Zero, mean and resample ablation, patching from another run and frozen patterns are all edits; they
differ in where the values come from: `zeros`, `means`, `resampled`, or a cache as it is.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits import distributed
from circuits.cache import Cache, CacheKey
from circuits.hooks import HookFn, HookPoint
from circuits.model import GPT
from circuits.tokens import checked_tokens

Metric = Callable[[Float[Tensor, "batch ..."]], Float[Tensor, " batch"]]
"""Logits -> one number for each example: of all positions [batch pos d_vocab], or where `at` says,
[batch d_vocab]."""
MEMORY = 2**30


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
    """The activation of another example in the place of each: resample ablation. The examples go
    round in a seeded order, so that none keeps its own. ValueError for fewer than two."""
    values = cache[key]
    if len(values) < 2:
        raise ValueError(
            f"resampling takes the values of other examples, and there is {len(values)}"
        )
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(seed))
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return values[other.to(values.device)]


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


def sweep(
    model: GPT,
    tokens: Int[Tensor, "batch pos"],
    cells: Sequence[Cell],
    metric: Metric,
    *,
    at: int | Int[Tensor, " batch"] | None = None,
    memory: int = MEMORY,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[Tensor, "cell batch"]:
    """The metric of each experiment for each example: what one run with its edits would give.

    What lies before the first layer that an experiment edits is not run again, experiments that
    begin in the same layer run as one batch, and logits are made only `at` the position that the
    metric looks at: one for all examples, or one each; without it, at all.
    `memory` bounds the bytes of activations of a batch by an estimate from above; `progress` is
    told how many experiments are done. In a process group each process runs its share and all get
    the results. Hooks that are attached stay in force. Gradients are not kept.
    """
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    where = _places(at, tokens)
    with torch.no_grad():
        before = _begun(model, tokens)
        results = before[0].new_zeros(len(cells), len(tokens))
        groups: dict[int, list[int]] = {}
        for number in range(distributed.rank(), len(cells), distributed.world()):
            groups.setdefault(_first_layer(model, cells[number]), []).append(number)
        for layer, numbers in sorted(groups.items()):
            size = _at_once(model, tokens, where is None, memory)
            for start in range(0, len(numbers), size):
                some = numbers[start : start + size]
                chosen = [cells[number] for number in some]
                begin = tokens if layer < 0 else before[layer]
                results[some] = _run(model, begin, layer, chosen, metric, where)
                progress(len(some))
    return distributed.total(results)


def run_cells(
    model: GPT, tokens: Int[Tensor, "batch pos"], cells: Sequence[Cell], names: Sequence[str]
) -> Cache:
    """What the runs of several experiments have at some hook points: [cell*batch ...], cell after
    cell, in one run from the tokens on."""
    edited = dict.fromkeys(one.name for cell in cells for one in cell)
    with torch.no_grad(), model.hooks([(name, _editing(cells, name)) for name in edited]):
        rows = checked_tokens(tokens, model.cfg).repeat(len(cells), 1)
        return model.run_with_cache(rows, None, names_filter=list(names))[1]


def _run(
    model: GPT,
    begin: Tensor,
    layer: int,
    cells: Sequence[Cell],
    metric: Metric,
    where: Int[Tensor, " batch"] | None,
) -> Float[Tensor, "cell batch"]:
    """Several experiments in one batch, cell after cell, from a layer or from the tokens on."""
    n, batch = len(cells), len(begin)
    rows = begin.repeat(n, *[1] * (begin.ndim - 1))
    names = dict.fromkeys(one.name for cell in cells for one in cell)
    start = {} if layer < 0 else {"start_at_layer": layer}
    with model.hooks(fwd_hooks=[(name, _editing(cells, name)) for name in names]):
        resid = model(rows, stop_at_layer=model.cfg.n_layers, **start)
        if where is None:
            logits = model.unembed(model.ln_final(resid))
        elif any(name.startswith("ln_final") for name in names):  # which edit whole rows
            logits = model.unembed(_taken(model.ln_final(resid), where)[:, None])[:, 0]
        else:
            logits = model.unembed(model.ln_final(_taken(resid, where)[:, None]))[:, 0]
    return torch.stack([metric(one) for one in logits.unflatten(0, (n, batch))])


def _taken(
    rows: Float[Tensor, "row pos d_model"], where: Int[Tensor, " batch"]
) -> Float[Tensor, "row d_model"]:
    """Each row at the position of its example."""
    every = torch.arange(len(rows), device=rows.device)
    return rows[every, where.repeat(len(rows) // len(where))]


def _editing(cells: Sequence[Cell], name: str) -> HookFn:
    """A hook that makes the edits of each cell in its own part of the batch."""
    edits = [(i, one) for i, cell in enumerate(cells) for one in cell if one.name == name]

    def make(activation: Tensor, hook: HookPoint) -> Tensor:
        changed = activation.clone()
        by_cell = changed.unflatten(0, (len(cells), -1))
        for number, one in edits:
            place = _index(one, hook, activation.ndim)
            values = one.source.expand_as(by_cell[number])[place].to(changed.dtype)
            by_cell[number][place] = by_cell[number][place] + values if one.add else values
        return changed

    return make


def _index(one: Edit, hook: HookPoint, ndim: int) -> tuple[int | slice, ...]:
    index: list[int | slice] = [slice(None)] * ndim
    head_dim = _head_dim(one.name)
    if one.pos is not None:
        index[hook.pos_dim] = one.pos
    if one.head is not None and head_dim is not None:
        index[head_dim] = one.head
    return tuple(index)


def _head_dim(name: str) -> int | None:
    """Where the heads of an activation lie, if it has any."""
    short = name.rpartition("hook_")[2]
    if short in ("attn_scores", "pattern"):
        return 1
    return 2 if short in ("q", "k", "v", "z", "result", "q_input", "k_input", "v_input") else None


def _first_layer(model: GPT, cell: Cell) -> int:
    """The first layer that a cell edits: -1 for what comes before the blocks, n_layers for what
    comes after them or nowhere."""
    layers = [model.cfg.n_layers]
    for one in cell:
        if one.name.startswith("blocks."):
            layers.append(model.hook_dict[one.name].layer())
        elif not one.name.startswith("ln_final"):
            layers.append(-1)
    return min(layers)


def _begun(model: GPT, tokens: Tensor) -> list[Tensor]:
    """The stream before each block and at the end, of the run that nothing is done to."""
    n = model.cfg.n_layers
    final, cache = model.run_with_cache(
        tokens, stop_at_layer=n, names_filter=lambda name: name.endswith("hook_resid_pre")
    )
    return [*(cache["resid_pre", layer] for layer in range(n)), final]


def _places(at: Any, tokens: Tensor) -> Int[Tensor, " batch"] | None:
    if at is None:
        return None
    batch, n = tokens.shape
    where = torch.as_tensor(at, device=tokens.device).expand(batch)
    if not ((where >= -n) & (where < n)).all():
        raise ValueError(f"at={at} is outside of {n} positions")
    return where % n


def _at_once(model: GPT, tokens: Tensor, every: bool, memory: int) -> int:
    """How many experiments fit: counted as if all of one block were held, with its patterns."""
    (batch, n), cfg = tokens.shape, model.cfg
    block = 12 * cfg.d_model + 3 * cfg.n_heads * n + 3 * (cfg.d_mlp or 0)
    numbers = batch * (n * block + (n if every else 1) * 3 * cfg.d_vocab)
    return max(1, memory // (numbers * model.W_E.element_size()))
