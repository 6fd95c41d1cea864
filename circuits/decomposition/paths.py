"""Paths: the model expanded into embed > heads > logits, term by term, exactly.

With the patterns of a run frozen, and the 1/sigma of its norms, attention is linear: a head carries
whatever stream it is given, x -> A x W_V W_O, and the logits are the sum over all ways through the
model. (Elhage et al. 2021, "The path expansion trick", for any number of layers,
https://transformer-circuits.pub/2021/framework/index.html)

A path starts at something that enters the stream: `embed`, `pos` (unless shortformer), `L0 bias`
(b_O, and what b_V and the norm's bias come to behind the heads of a layer), `MLP0` (all that an MLP
writes: frozen, since it is not linear). It passes heads of increasing layers, and ends where
something reads: `logits`, the neurons of `MLP1`, the `L1H2.Q`, `.K` or `.V` of a head. What is
added there whatever comes (b_U, b_in, b_Q, the norm's bias) is a path from `bias`.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition.frozen import (
    Read,
    arrived,
    aside,
    carried,
    constant,
    reader,
    source,
    starts,
    whole,
)
from circuits.decomposition.parts import Parts
from circuits.decomposition.stream import Stream
from circuits.hooks import Cache
from circuits.model import GPT, AnyHead, Head, components

By = Literal["order", "start", "layers", "path"]
MEMORY = 2**30


@dataclass(frozen=True)
class Path:
    """A way through the model; `str(path)` is 'embed > L0H1 > L1H0 > logits'."""

    start: str
    heads: tuple[Head, ...] = ()
    end: str = "logits"

    @property
    def order(self) -> int:
        """How many heads it passes: 0 is a direct path, 2 a virtual head."""
        return len(self.heads)

    def __str__(self) -> str:
        return " > ".join((self.start, *map(str, self.heads), self.end))


def path(model: GPT, text: str) -> Path:
    """The path written as 'embed > L0H1 > logits'.

    ValueError if it names what does not exist, or if layers do not increase along it.
    """
    names = [name.strip() for name in text.split(">")]
    if len(names) < 2:
        raise ValueError(f"a path is written like 'embed > L0H1 > logits', got {text!r}")
    start, *between, end = names
    found = Path(start, components.heads(model.cfg, between), end)
    _check(model, found)
    return found


def all(model: GPT, order: int | None = None, *, end: str = "logits") -> list[Path]:
    """Every path to `end`, or every one through `order` heads, direct paths first.

    Their number grows as (heads + 1)^layers: count before you sum. `grouped` sums without listing.
    """
    _check_end(model, end)
    layers = range(components.depth(model.cfg, end) // 2)  # those whose heads come before
    orders = range(len(layers) + 1) if order is None else [order]
    if order is not None and not 0 <= order <= len(layers):
        raise ValueError(f"paths to {end} pass 0 to {len(layers)} heads, got order={order}")
    chains = [
        tuple(Head(layer, head) for layer, head in zip(chosen, numbers, strict=True))
        for n in orders
        for chosen in combinations(layers, n)
        for numbers in product(range(model.cfg.n_heads), repeat=n)
    ]
    begin, added = starts(model, end), aside(model, end)
    return [
        Path(start, chain, end)
        for chain in chains
        for start in (*begin, *added)
        if not chain or begin.get(start, math.inf) < components.depth(model.cfg, str(chain[0]))
    ]


def value(model: GPT, cache: Cache, path: Path) -> Read:
    """What arrives along one path at its end, with patterns and scales frozen as in the run."""
    _check(model, path)
    if path.start in aside(model, path.end):
        return constant(model, cache, path.start, path.end)
    x = source(model, cache, path.start)
    for head in path.heads:
        x = carried(model, cache, x, [head])
    return arrived(model, cache, x, path.end)


def logits(model: GPT, cache: Cache, path: Path) -> Float[Tensor, "batch pos d_vocab"]:
    """What one path adds to the logits. The sum over `all` paths is the logits."""
    if path.end != "logits":
        raise ValueError(f"{path} does not end in the logits; see paths.value")
    return value(model, cache, path)


def grouped(
    model: GPT,
    cache: Cache,
    by: By = "order",
    *,
    end: str = "logits",
    heads: Sequence[AnyHead] | None = None,
    memory: int = MEMORY,
) -> Parts:
    """The sum of all paths to `end`, [group batch pos read], in groups: by "order" (how many heads
    they pass), by "start", by the "layers" whose heads they pass, or each "path" alone.

    They sum to what the end really reads. With `heads`, only paths are taken whose heads are all
    among these, and the remainder is what the other heads carry. Groups are carried up together, a
    layer at a time: none but "path" is ever listed path by path. ValueError before more than
    `memory` bytes are held, by an estimate from above.
    """
    _check_end(model, end)
    every = components.every_head(model.cfg)
    wanted = every if heads is None else {components.head(model.cfg, name) for name in heads}
    chosen = [head for head in every if head in wanted]
    if by not in _GROUPINGS:
        raise ValueError(f"paths are grouped by one of {list(_GROUPINGS)}, got {by!r}")
    grouping, begin = _GROUPINGS[by], starts(model, end)
    streams: dict[Hashable, Stream] = {}
    for depth in range(components.depth(model.cfg, end)):
        layer = [head for head in chosen if 2 * head.layer + 1 == depth]
        teams = [[head] for head in layer] if by == "path" else [layer] if layer else []
        before = dict(streams)
        _check_fits(model, cache, len(before) * (1 + len(teams)), end, memory)
        for team in teams:
            moved = carried(model, cache, torch.stack([*before.values()]), team)
            _add(streams, [grouping.then(key, team[0]) for key in before], moved)
        entered = [name for name, at in begin.items() if at == depth]
        _add(streams, map(grouping.first, entered), [source(model, cache, s) for s in entered])
    _check_fits(model, cache, len(streams), end, memory)
    arriving = arrived(model, cache, torch.stack([*streams.values()]), end)
    read = dict(zip(streams, arriving, strict=True))
    apart = aside(model, end)
    _add(read, map(grouping.first, apart), [constant(model, cache, s, end) for s in apart])
    labels = [grouping.label(key, end) for key in read]
    return Parts(labels, torch.stack([*read.values()]), whole(model, cache, end))


def _check_end(model: GPT, end: str) -> None:
    if end != "logits" and not end.startswith("MLP"):
        reader(model, end)


def _check_fits(model: GPT, cache: Cache, groups: int, end: str, memory: int) -> None:
    """ValueError if so many groups take more bytes: each as a stream, and what a norm makes of it,
    and as what the end reads."""
    batch, n, width = cache["embed"].shape
    cfg, W = model.cfg, model.W_U
    read = W.shape[1] if end == "logits" else cfg.d_mlp if end.startswith("MLP") else cfg.d_head
    needed = groups * batch * n * (6 * width + 3 * (read or 0)) * W.element_size()
    if needed > memory:
        raise ValueError(
            f"{groups} groups of paths to {end} want {needed / 2**30:.1f} GiB, and memory="
            f"{memory / 2**30:.1f} GiB: group them by order, start or layers, take some heads= or "
            f"fewer examples, allow more memory=, or go through paths.all with paths.value"
        )


def _check(model: GPT, path: Path) -> None:
    components.heads(model.cfg, path.heads)
    _check_end(model, path.end)
    begin, added = starts(model, path.end), aside(model, path.end)
    if path.start not in begin and path.start not in added:
        raise ValueError(f"no path to {path.end} starts at {path.start!r}; there are "
                         f"{[*begin, *added]}")  # fmt: skip
    if path.start in added and path.heads:
        raise ValueError(f"{path.start} is added at the end and passes no heads: {path}")
    depths = [begin.get(path.start, 0), *(2 * head.layer + 1 for head in path.heads)]
    depths.append(components.depth(model.cfg, path.end))
    if any(a >= b for a, b in pairwise(depths)):
        raise ValueError(f"a path leads from earlier layers to later ones, and {path} does not")


def _add(sums: dict[Any, Tensor], keys: Iterable[Any], new: Iterable[Tensor]) -> None:
    """Add each new value to the sum under its key."""
    for key, value in zip(keys, new, strict=True):
        sums[key] = sums[key] + value if key in sums else value


class _Grouping(NamedTuple):
    """To which group a path belongs, as it grows from its start head by head."""

    first: Callable[[str], Hashable]
    then: Callable[[Any, Head], Hashable]
    label: Callable[[Any, str], str]


_GROUPINGS: dict[str, _Grouping] = {
    "order": _Grouping(lambda start: 0, lambda n, head: n + 1, lambda n, end: f"order {n}"),
    "start": _Grouping(lambda start: start, lambda start, head: start, lambda start, end: start),
    "layers": _Grouping(
        lambda start: (),
        lambda layers, head: (*layers, f"L{head.layer}"),
        lambda layers, end: " ".join(layers) or "direct",
    ),
    "path": _Grouping(
        lambda start: (start,),
        lambda names, head: (*names, str(head)),
        lambda names, end: " > ".join((*names, end)),
    ),
}
