"""Scores of whole patterns, without a mask; and patterns to look at.

As in `attention`, position 0 is left out unless the docstring says otherwise: it can only attend to
itself. `low` and `high` are the ends of its 95% interval over the rows of tokens.
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.heads.attention import is_pattern_or_value, value_weighted
from analyses.heads.masks import Tokens
from analyses.labelled import (
    Model,
    Pattern,
    head_coords,
    mean_per_head,
    of_patterns,
    to_numpy,
    tokens_of,
)
from circuits.matrices import at_least_single
from circuits.model import Ids

PerRow = Float[Tensor, "batch head"]
SINK = 0.3
"The share of attention from which on Gu et al. call a token a sink: their epsilon."


def entropy(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """Mean entropy of the attention of a destination, -sum(A ln A), (layer, head), in nats.

    0 for a head that always looks at one token; attrs["chance"] is a uniform head's, the largest
    there is. On random tokens unless some are given.
    """
    tokens = _more_than_one(model, tokens)
    visible = torch.arange(2, tokens.shape[1] + 1, dtype=torch.float64)
    most = visible.log().mean().item()
    return mean_per_head(
        of_patterns(model, tokens, _entropy),
        _each(tokens, tokens.shape[1] - 1),
        "entropy",
        long_name="entropy of attention",
        units="nats",
        bounds=(0.0, most),
        chance=most,
        **prompts.described(model, tokens),
    )


def _entropy(pattern: Tensor) -> PerRow:
    return torch.special.entr(pattern[..., 1:, :]).sum((-2, -1))


def sink(model: Model, tokens: Ids | str | None = None, *, epsilon: float = SINK) -> DataArray:
    """Share of prompts in which position 0 takes more than `epsilon` of a head's attention, as a
    mean over all destinations and itself, (layer, head), in [0, 1].

    The mean over heads is sink^epsilon of Gu et al. 2024 (https://arxiv.org/abs/2410.10781), whose
    definition counts position 0 as a destination too. attrs["chance"] is 1 where the prompts are so
    short that a uniform head passes. On random tokens unless some are given.
    """
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon is a share of attention, from 0 to below 1; got {epsilon}")
    tokens = prompts.tokens_or(model, tokens, prompts.random_tokens)
    uniform = (1 / torch.arange(1, tokens.shape[1] + 1, dtype=torch.float64)).mean().item()
    return mean_per_head(
        of_patterns(model, tokens, partial(_sinks, epsilon=epsilon)),
        _each(tokens),
        "sink",
        long_name=f"prompts whose first token takes over {epsilon:g} of the attention",
        bounds=(0.0, 1.0),
        chance=float(uniform > epsilon),
        **prompts.described(model, tokens),
    )


def _sinks(pattern: Tensor, epsilon: float) -> PerRow:
    return (pattern[..., 0].mean(-1) > epsilon).double()


def moved_from_first(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """Of all that a head moves, sum(A_ij ||v_j||), the share that comes from position 0, (layer,
    head), in [0, 1]: the sink with its values weighed, near 0 for a head that only rests there.

    attrs["chance"] is that of a head that attends uniformly and whose values are all of one size.
    NaN for a head that moves nothing. On random tokens unless some are given.
    """
    tokens = _more_than_one(model, tokens)
    found = [_moved(model, tokens, layer) for layer in range(model.cfg.n_layers)]
    empty = torch.empty(2, len(tokens), 0, model.cfg.n_heads)
    first, whole = torch.stack(found, 2) if found else empty
    uniform = 1 / torch.arange(2, tokens.shape[1] + 1, dtype=torch.float64)
    return mean_per_head(
        first,
        whole,
        "moved_from_first",
        long_name="share of what is moved that comes from position 0",
        bounds=(0.0, 1.0),
        chance=uniform.mean().item(),
        **prompts.described(model, tokens),
    )


def _moved(model: Model, tokens: Tensor, layer: int) -> Float[Tensor, "2 batch head"]:
    """The sizes of the values that a head moves from position 0, and from anywhere."""
    names = [f"blocks.{layer}.attn.hook_{what}" for what in ("pattern", "v")]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names)
    pattern, v = (at_least_single(cache[name].to(tokens.device)) for name in names)
    moved = pattern[..., 1:, :].sum(-2) * v.norm(dim=-1).mT  # batch head src
    return torch.stack([moved[..., 0], moved.sum(-1)])


def fixed_offset(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """Share of destinations whose strongest source is at the one distance back that is most common
    for the head, (layer, head), in [0, 1]. The coordinate `offset` is that distance.

    Voita et al. 2019 (https://arxiv.org/abs/1905.09418) call a head positional from 0.9 on.
    attrs["chance"] is the share of distance 0 for a head whose strongest source is any. On random
    tokens unless some are given.
    """
    tokens = _more_than_one(model, tokens)
    back = of_patterns(model, tokens, _strongest)  # batch layer head after_first
    usual = back.movedim(0, 2).flatten(2).mode(-1).values  # layer head
    same = (back == usual[..., None]).double().sum(-1)
    visible = torch.arange(2, tokens.shape[1] + 1, dtype=torch.float64)
    score = mean_per_head(
        same,
        _each(tokens, tokens.shape[1] - 1),
        "fixed_offset",
        long_name="destinations whose strongest source is at the usual distance",
        bounds=(0.0, 1.0),
        chance=(1 / visible).mean().item(),
        **prompts.described(model, tokens),
    )
    return score.assign_coords(offset=(("layer", "head"), to_numpy(usual.long())))


def _strongest(pattern: Tensor) -> Float[Tensor, "batch head after_first"]:
    dest = torch.arange(1, pattern.shape[-2], device=pattern.device)
    return (dest - pattern[..., 1:, :].argmax(-1)).double()


def capture(model: Model, tokens: Ids | str) -> DataArray:
    """Every head's pattern on one row of tokens, (view, layer, head, dest, src), in [0, 1], to be
    looked at: view "attention" is the pattern, "moved" the value-weighted one, each head scaled so
    that its largest entry is 1."""
    tokens = tokens_of(model, tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=is_pattern_or_value)
    layers = range(model.cfg.n_layers)
    attended: list[Pattern] = [cache[f"blocks.{i}.attn.hook_pattern"] for i in layers]
    values = [cache[f"blocks.{i}.attn.hook_v"] for i in layers]
    moved = [value_weighted(a, v) for a, v in zip(attended, values, strict=True)]
    n, heads = tokens.shape[1], model.cfg.n_heads
    empty = torch.empty(2, 0, heads, n, n)
    seen = torch.stack([torch.cat(attended), torch.cat(moved)]) if attended else empty
    return DataArray(
        to_numpy(seen),
        dims=("view", "layer", "head", "dest", "src"),
        coords={"view": ["attention", "moved"], **head_coords(len(attended), heads)},
        name="patterns",
        attrs={"long_name": "attention", "bounds": (0.0, 1.0)},
    )


def _more_than_one(model: Model, tokens: Ids | str | None) -> Tokens:
    """The tokens, random ones by default; ValueError for one alone, which attends to itself."""
    tokens = prompts.tokens_or(model, tokens, prompts.random_tokens)
    if tokens.shape[1] < 2:
        raise ValueError(f"wanted are at least 2 tokens, got {list(tokens.shape)}: position 0 can "
                         f"only attend to itself")  # fmt: skip
    return tokens


def _each(tokens: Tokens, count: int = 1) -> Int[Tensor, "batch 1 1"]:
    """The number of destinations in every row."""
    return torch.full((len(tokens), 1, 1), count)
