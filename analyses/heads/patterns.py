"""Scores of whole patterns, without a mask, and patterns for pictures.

Unless the docstring says otherwise, destination 0 is left out: it can only attend to itself. The
coordinates `low` and `high` are the ends of a score's 95% interval over the rows of tokens.
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
from circuits import algebra
from circuits.matrices import at_least_single
from circuits.model import GPT, Ids, check_causal

PerRow = Float[Tensor, "batch head"]
SINK = 0.3
"The epsilon of Gu et al.: a token with a larger share of the attention is a sink."


def entropy(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean entropy of a destination's attention, -sum(A ln A), (layer, head), in nats.

    0 for a head that always attends to one token. attrs["chance"] is the entropy of uniform
    attention, the largest possible. The default is random tokens.
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
    """The share of prompts in which position 0 gets more than `epsilon` of a head's attention, in
    the mean over all destinations, position 0 included; (layer, head), in [0, 1].

    The mean over heads is sink^epsilon of Gu et al. 2024 (https://arxiv.org/abs/2410.10781), who
    also count position 0 as a destination. attrs["chance"] is 1 if the prompts are so short that
    uniform attention exceeds `epsilon`. The default is random tokens.
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
    """The share of sum(A_ij ||v_j||) with source j = 0, (layer, head), in [0, 1]: the sink weighted
    by the norm of the values. Near 0 for a head that attends to position 0 but moves nothing from
    there.

    attrs["chance"] is the share for uniform attention and values of equal norm. NaN for a head that
    moves nothing. The default is random tokens.
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
    """sum(A_ij ||v_j||) over source 0, and over all sources."""
    names = [f"blocks.{layer}.attn.hook_{what}" for what in ("pattern", "v")]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names)
    pattern, v = (at_least_single(cache[name].to(tokens.device)) for name in names)
    moved = pattern[..., 1:, :].sum(-2) * v.norm(dim=-1).mT  # batch head src
    return torch.stack([moved[..., 0], moved.sum(-1)])


def fixed_offset(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The share of destinations whose strongest source is at the head's most common distance back,
    (layer, head), in [0, 1]. The coordinate `offset` is this distance.

    Voita et al. 2019 (https://arxiv.org/abs/1905.09418) call a head positional from 0.9 on.
    attrs["chance"] is the share of distance 0 if the strongest source is random. The default is
    random tokens.
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
    """Every head's pattern on one row of tokens, (view, layer, head, dest, src), in [0, 1], for
    pictures. View "attention" is the pattern, view "moved" is `attention.value_weighted`."""
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


def from_positions(model: GPT, length: int) -> DataArray:
    """The pattern that positions alone give each head of layer 0, (head, dest, src), in [0, 1], for
    the first `length` positions: the softmax over earlier positions of W_pos W_QK W_pos^T, tokens
    and biases aside.

    A norm divides by the size of token and position together: its mean square over all tokens is
    taken. ValueError for a model without positions, and for `length` not from 1 to n_ctx.
    """
    check_causal(model.cfg, "a pattern of positions")
    if not 1 <= length <= model.cfg.n_ctx:
        raise ValueError(f"the model has positions 1 to {model.cfg.n_ctx}, got length={length}")
    with torch.no_grad():
        scores = at_least_single(algebra.positional_QK(model)[0].AB[:, :length, :length])
        sizes = _sizes_at_positions(model)[:length]
        future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
        scores = (scores / (sizes[:, None] * sizes)).masked_fill(future, -torch.inf)
    attrs = {"long_name": "attention by positions alone", "bounds": (0.0, 1.0)}
    return DataArray(to_numpy(scores.softmax(-1)), dims=("head", "dest", "src"), attrs=attrs)


def _sizes_at_positions(model: GPT) -> Float[Tensor, " pos"]:
    """The number by which the first norm divides at each position, of the mean over all tokens; 1
    where positions do not pass it."""
    kind = model.cfg.normalization_type or ""
    if not kind or model.cfg.shortformer:
        return torch.ones(model.cfg.n_ctx, device=model.W_E.device)
    E, P = (at_least_single(W) for W in (model.W_E, model.W_pos))
    if kind.startswith("LN"):
        E, P = (W - W.mean(-1, keepdim=True) for W in (E, P))
    square = E.pow(2).sum(-1).mean() + 2 * P @ E.mean(0) + P.pow(2).sum(-1)
    return (square / model.cfg.d_model + model.cfg.eps).sqrt()


def _more_than_one(model: Model, tokens: Ids | str | None) -> Tokens:
    """The tokens, or random tokens for None; ValueError for fewer than two positions."""
    tokens = prompts.tokens_or(model, tokens, prompts.random_tokens)
    if tokens.shape[1] < 2:
        raise ValueError(f"at least 2 tokens are needed, got {list(tokens.shape)}: position 0 can "
                         f"only attend to itself")  # fmt: skip
    return tokens


def _each(tokens: Tokens, count: int = 1) -> Int[Tensor, "batch 1 1"]:
    """The number of destinations in every row."""
    return torch.full((len(tokens), 1, 1), count)
