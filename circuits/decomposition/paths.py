"""Paths: the model expanded into embed > heads > logits, term by term, exactly.

If the attention patterns and the 1/sigma of the norms are frozen as in a run, attention is linear:
a head moves any stream x to A x W_V W_O, and the logits are the sum over all paths through the
model. (Elhage et al. 2021, "The path expansion trick", here for any number of layers,
https://transformer-circuits.pub/2021/framework/index.html)

A path starts at a term that enters the stream: `embed`; `pos`, unless positions are shortformer;
`L0 bias`, the b_O of a layer and the effect of b_V and of the norm's bias behind its heads; `MLP0`,
the frozen output of an MLP, which is not linear. A path passes heads of increasing layers. It ends
at a reader: `logits`, the neurons of `MLP1` (in a gated MLP their gates, and `MLP1.linear` is their
second read), or the `L1H2.Q`, `.K` or `.V` of a head. The constants
that are added at the end (b_U, b_in, b_Q, the norm's bias) form a path from `bias`.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import reduce
from itertools import combinations, pairwise, product
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition.frozen import (
    Read,
    constant_starts,
    constant_term,
    end_input,
    end_weights,
    start_term,
    starts,
    through_heads,
    whole_input,
)
from circuits.decomposition.parts import Parts
from circuits.decomposition.stream import Stream, whole_pattern
from circuits.hooks import Cache
from circuits.model import GPT, AnyHead, AnyPath, Head, Path, components

By = Literal["order", "start", "layers", "path"]
MEMORY = 2**30
"The bytes that the groups of paths may take, by default."


def path(model: GPT, given: AnyPath) -> Path:
    """The path that is written as 'embed > L0H1 > logits'. ValueError if it names a component that
    does not exist, or if layers do not increase along it."""
    found = components.path(model.cfg, given)
    _check_end(model, found.end)
    begin, added = starts(model, found.end), constant_starts(model, found.end)
    if found.start not in begin and found.start not in added:
        raise ValueError(
            f"no path to {found.end} starts at {found.start!r}; there are {[*begin, *added]}"
        )
    if found.start in added and found.heads:
        raise ValueError(f"{found.start} is added at the end and passes no heads: {found}")
    readers = [*map(str, found.heads), found.end]
    depths = [begin.get(found.start, 0), *(components.depth(model.cfg, name) for name in readers)]
    if any(a >= b for a, b in pairwise(depths)):
        raise ValueError(f"a path leads from earlier layers to later layers; {found} does not")
    return found


def all(model: GPT, order: int | None = None, *, end: str = "logits") -> list[Path]:
    """Every path to `end`, or every path through `order` heads; direct paths come first.

    The number of paths grows as (heads + 1)^layers. `groups` sums them without a list.
    """
    _check_end(model, end)
    last = components.depth(model.cfg, end)
    layers = [n for n in range(model.cfg.n_layers) if components.depth(model.cfg, f"L{n}H0") < last]
    orders = range(len(layers) + 1) if order is None else [order]
    if order is not None and not 0 <= order <= len(layers):
        raise ValueError(f"paths to {end} pass 0 to {len(layers)} heads, got order={order}")
    chains = [
        tuple(Head(layer, head) for layer, head in zip(chosen, numbers, strict=True))
        for n in orders
        for chosen in combinations(layers, n)
        for numbers in product(range(model.cfg.n_heads), repeat=n)
    ]
    begin, added = starts(model, end), constant_starts(model, end)
    return [
        Path(start, chain, end)
        for chain in chains
        for start in (*begin, *added)
        if not chain or begin.get(start, math.inf) < components.depth(model.cfg, str(chain[0]))
    ]


def value(model: GPT, cache: Cache, given: AnyPath) -> Read:
    """The term that one path adds at its end. Patterns and scales come from the run."""
    found = path(model, given)
    start, heads, end = found.start, found.heads, found.end
    if start in constant_starts(model, end):
        return constant_term(model, cache, start, end)
    x = start_term(model, cache, start)
    for head in heads:
        x = through_heads(model, cache, x, [head])
    return end_input(model, cache, x, end)


def logits(model: GPT, cache: Cache, given: AnyPath) -> Float[Tensor, "batch pos d_vocab"]:
    """The term that one path adds to the logits. The sum over `all` paths is the logits."""
    found = path(model, given)
    if found.end != "logits":
        raise ValueError(f"{found} does not end in the logits; see paths.value")
    return value(model, cache, found)


def virtual_pattern(
    model: GPT, cache: Cache, chain: Sequence[AnyHead]
) -> Float[Tensor, "batch dest src"]:
    """A^n ... A^2 A^1, the pattern of the virtual head that a chain of heads makes, in [0, 1]: the
    share of a source that reaches a destination along the chain. ValueError unless the layers
    increase."""
    found = components.heads(model.cfg, chain)
    if not found:
        raise ValueError("a virtual head is made of one head or more, got none")
    first, *later = (whole_pattern(model, cache, at.layer)[:, at.head] for at in found)
    return reduce(lambda moved, pattern: pattern @ moved, later, first)


def groups(
    model: GPT,
    cache: Cache,
    by: By = "order",
    *,
    end: str = "logits",
    heads: Sequence[AnyHead] | None = None,
    memory: int = MEMORY,
) -> Parts:
    """The sums of the paths to `end` in groups, [group batch pos read]: by "order" (the number of
    heads on the path), by "start", by the "layers" of the heads on the path, or each "path" alone.

    The groups sum to the input of the end in the run. With `heads`, only paths through these heads
    are counted, and the remainder is the share of the other heads. The groups are moved up layer by
    layer, so no grouping but "path" lists the paths. ValueError before the groups would take more
    than `memory` bytes, by an estimate from above.
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
        layer = [head for head in chosen if components.depth(model.cfg, str(head)) == depth]
        teams = [[head] for head in layer] if by == "path" else [layer] if layer else []
        before = dict(streams)
        _check_fits(model, cache, len(before) * (1 + len(teams)), end, memory)
        for team in teams:
            moved = through_heads(model, cache, torch.stack([*before.values()]), team)
            _add(streams, [grouping.then(key, team[0]) for key in before], moved)
        entered = [name for name, at in begin.items() if at == depth]
        _add(streams, map(grouping.first, entered), [start_term(model, cache, s) for s in entered])
    _check_fits(model, cache, len(streams), end, memory)
    arriving = end_input(model, cache, torch.stack([*streams.values()]), end)
    terms = dict(zip(streams, arriving, strict=True))
    added = constant_starts(model, end)
    _add(terms, map(grouping.first, added), [constant_term(model, cache, s, end) for s in added])
    labels = [grouping.label(key, end) for key in terms]
    return Parts(labels, torch.stack([*terms.values()]), whole_input(model, cache, end))


def _check_end(model: GPT, end: str) -> None:
    if end != "logits" and not end.startswith("MLP"):
        components.head_input(model.cfg, end)


def _check_fits(model: GPT, cache: Cache, number: int, end: str, memory: int) -> None:
    """ValueError if this number of groups takes more bytes than `memory`: each group as a stream,
    as the output of a norm, and as the input of the end."""
    batch, n, width = cache["embed"].shape
    W = end_weights(model, end).W
    needed = number * batch * n * (6 * width + 3 * W.shape[1]) * W.element_size()
    if needed > memory:
        raise ValueError(
            f"{number} groups of paths to {end} want {needed / 2**30:.1f} GiB, and memory="
            f"{memory / 2**30:.1f} GiB: group them by order, start or layers, take some heads= or "
            f"fewer examples, allow more memory=, or go through paths.all with paths.value"
        )


def _add(sums: dict[Any, Tensor], keys: Iterable[Any], new: Iterable[Tensor]) -> None:
    """Add each new value to the sum under its key."""
    for key, value in zip(keys, new, strict=True):
        sums[key] = sums[key] + value if key in sums else value


class _Grouping(NamedTuple):
    """The key of a path's group, while the path grows from its start head by head."""

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
