"""The attention scores of each head: the mean attention on the mask of a behaviour.

A score is the attention on the entries of a mask, averaged over the destinations with such an
entry. attrs["chance"] is the score of a head that attends uniformly. The coordinates `low` and
`high` are the ends of a score's 95% interval over the rows of tokens. Scores without a mask are in
`patterns`; scores for contexts too long for a pattern are in `long_context`.
"""

from functools import partial

import numpy as np
import torch
import xarray
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.heads.masks import (
    BEHAVIOURS,
    Mask,
    Tokens,
    counted_destinations,
    to_offset,
    uniform_attention,
)
from analyses.labelled import Model, mean_per_head, of_patterns, per_head
from circuits.matrices import at_least_single
from circuits.model import Ids

THRESHOLD = 0.4
"A head has the role of a behaviour whose score is above this threshold (ARENA's value)."


def attention_on(model: Model, tokens: Tokens, mask: Mask, name: str, long_name: str) -> DataArray:
    """The mean attention on a mask, (layer, head), in [0, 1], with `low` and `high`.

    The mean is over the destinations after position 0 with an entry in their row of the mask;
    ValueError if there is none. attrs["counted"] is their share of all positions. The score times
    this share is the "mul" score of TransformerLens's detect_head, which counts all other
    destinations as 0.
    """
    rows = counted_destinations(mask)
    if not rows.any():
        raise ValueError(f"no destination in these tokens has anything to match for {name!r}")
    return mean_per_head(
        of_patterns(model, tokens, partial(_on_mask, mask=mask * rows[..., None])),
        rows.sum(-1)[:, None, None],
        name,
        long_name=long_name,
        chance=(uniform_attention(mask, rows).sum() / rows.sum()).item(),
        bounds=(0.0, 1.0),
        counted=rows.double().mean().item(),
        **prompts.described(model, tokens),
    )


def _on_mask(pattern: Tensor, mask: Mask) -> Float[Tensor, "batch head"]:
    return (pattern * mask[:, None]).sum((-2, -1))


def behaviour(model: Model, tokens: Ids | str | None = None, *, name: str) -> DataArray:
    """The mean attention on the mask of masks.BEHAVIOURS[name], (layer, head), in [0, 1]; the
    default prompt is the prompt of this behaviour."""
    rule = BEHAVIOURS[name]
    tokens = prompts.tokens_or(model, tokens, rule.prompt)
    short = "prefix_matching" if name == "induction" else name.replace(" ", "_")
    return attention_on(model, tokens, rule.mask(tokens), short, rule.long_name)


def previous_token(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean attention to the previous token, (layer, head), in [0, 1]; by default on random
    tokens."""
    return behaviour(model, tokens, name="previous token")


def current_token(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean attention of a token to itself, (layer, head), in [0, 1]; by default on random
    tokens."""
    return behaviour(model, tokens, name="current token")


def first_token(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean attention to position 0, (layer, head), in [0, 1]; by default on random tokens."""
    return behaviour(model, tokens, name="first token")


def duplicate_token(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean attention of a token to its earlier copies, (layer, head), in [0, 1]; by default on
    repeated random tokens."""
    return behaviour(model, tokens, name="duplicate token")


def prefix_matching(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean attention to the tokens after earlier copies of the current token, (layer, head), in
    [0, 1]. (Olsson et al. 2022; by default on their prompt, `prompts.repeated_often`.)"""
    return behaviour(model, tokens, name="induction")


def offset(model: Model, tokens: Ids | str | None = None, *, back: int) -> DataArray:
    """The mean attention to the token `back` positions before, (layer, head), in [0, 1]; by default
    on random tokens."""
    tokens = prompts.tokens_or(model, tokens, prompts.random_tokens)
    words = f"attention {back} tokens back"
    return attention_on(model, tokens, to_offset(tokens, back), f"offset_{back}", words)


def positional_preference(
    model: Model, tokens: Ids | str | None = None, *, reach: int = 16
) -> DataArray:
    """The mean attention at each distance back, (layer, head, offset), in [0, 1], for offsets 0 to
    `reach`; by default on random tokens. attrs["chance"] is uniform attention at offset 0."""
    tokens = prompts.tokens_or(model, tokens, prompts.random_tokens)
    batch, n = tokens.shape
    reach = min(reach, n - 1)
    dests = torch.tensor([n - max(back, 1) for back in range(reach + 1)])
    preference = mean_per_head(
        of_patterns(model, tokens, partial(_on_diagonals, reach=reach)),
        dests.expand(batch, 1, 1, -1),
        "positional_preference",
        "offset",
        long_name="mean attention",
        bounds=(0.0, 1.0),
        chance=(1 / torch.arange(2, n + 1, dtype=torch.float64)).mean().item(),
        **prompts.described(model, tokens),
    )
    return preference.assign_coords(offset=range(reach + 1))


def nearby(model: Model, tokens: Ids | str | None = None, *, reach: int = 6) -> DataArray:
    """The share of a head's attention at each distance back, (layer, head, offset), in [0, 1], of
    all its attention that is not on the first token; offsets 0 to `reach`. A head that attends to
    the last several tokens has most of it there, and not at one distance."""
    tokens = prompts.tokens_or(model, tokens, prompts.random_tokens)
    reach = min(reach, tokens.shape[1] - 2)

    def of(pattern: Tensor) -> Float[Tensor, "batch head offset_and_all"]:
        aside = pattern[..., 1:, 1:]
        near = [aside.diagonal(-back, -2, -1).sum(-1) for back in range(reach + 1)]
        return torch.stack([*near, aside.sum((-2, -1))], -1)

    sums = of_patterns(model, tokens, of).sum(0)
    shares = sums[..., :-1] / sums[..., -1:].clamp(min=1e-12)
    words = "share of the attention that is not on the first token"
    found = per_head(shares, "nearby", "offset", long_name=words, bounds=(0.0, 1.0))
    return found.assign_coords(offset=range(reach + 1))


def _on_diagonals(pattern: Tensor, reach: int) -> Float[Tensor, "batch head offset"]:
    after_first = pattern[..., 1:, :]  # position 0 can only attend to itself
    sums = [after_first.diagonal(1 - back, -2, -1).sum(-1) for back in range(reach + 1)]
    return torch.stack(sums, -1)


def positional(model: Model, tokens: Ids | str | None = None, *, reach: int = 16) -> DataArray:
    """The largest mean attention at one distance back, (layer, head), in [0, 1]: near 1 for a head
    that attends by position alone. The coordinate `offset` is this distance, 0 to `reach`.

    attrs["chance"] is uniform attention at distance 0. `low` and `high` are the interval at this
    distance; it does not allow for the choice of the largest.
    """
    preference = positional_preference(model, tokens, reach=reach)
    best = preference.isel(offset=preference.argmax("offset")).rename("positional")
    return best.assign_attrs(long_name="attention to the distance back that a head prefers")


def taxonomy(model: Model, *, threshold: float = THRESHOLD, bos: int | None = None) -> DataArray:
    """The score of every behaviour, (layer, head, behaviour), in [0, 1], and the role of each head:
    see `with_roles`. `chance` (behaviour) is the score of uniform attention, `positions`
    (behaviour) the number of positions of the prompt. `bos` is as in prompts.bos_of."""
    found = [
        behaviour(model, rule.prompt(model, bos=bos), name=name)
        for name, rule in BEHAVIOURS.items()
    ]
    scores = xarray.concat(found, "behaviour", combine_attrs="drop", coords="different",
                           compat="equals", join="exact")  # fmt: skip
    scores = scores.transpose("layer", "head", "behaviour").assign_coords(
        behaviour=list(BEHAVIOURS),
        chance=("behaviour", [score.attrs["chance"] for score in found]),
        positions=("behaviour", [score.attrs["positions"] for score in found]),
    )
    return with_roles(scores.rename("taxonomy"), threshold)


def with_roles(scores: DataArray, threshold: float = THRESHOLD) -> DataArray:
    """Scores (layer, head, behaviour), with each head's role as coordinates (layer, head).

    `role` names the behaviour with a head's largest score above the threshold, or is "-". The role
    "first token" counts only if no other behaviour is above the threshold. `score` is the score of
    the role, or the largest score for "-". `margin` is the smallest change of one score that would
    change the role: the distance of `score` to the threshold, or to the second largest score if
    this is above the threshold. For "first token" another score can also rise to the threshold.
    ValueError for NaN scores, as of a model with NaN weights.
    """
    unknown = np.argwhere(scores.isnull().any("behaviour").transpose("layer", "head").values)
    if len(unknown):
        heads = [f"L{layer}H{head}" for layer, head in unknown]
        raise ValueError(f"scores of {heads} are NaN: are all weights of the model finite?")
    busy = scores.where(scores.behaviour != "first token", 0.0)
    ranked = xarray.where((busy > threshold).any("behaviour"), busy, scores)
    best = ranked.max("behaviour")
    role = ranked.behaviour[ranked.argmax("behaviour")].where(best > threshold, "-")
    runner_up = busy.where(busy.behaviour != role, 0.0).max("behaviour").clip(min=threshold)
    margin = abs(best - runner_up.where(role != "-", threshold))
    until_busy = (threshold - busy.max("behaviour")).where(role == "first token", np.inf)
    each = {"role": role, "score": best, "margin": np.minimum(margin, until_busy)}
    return scores.assign_coords(
        {name: (("layer", "head"), values.data) for name, values in each.items()}
    ).assign_attrs(threshold=threshold, bounds=(0.0, 1.0), long_name="mean attention")


def is_pattern_or_value(name: str) -> bool:
    """True for the hook points of patterns and values, for `names_filter`."""
    return name.endswith(("attn.hook_pattern", "attn.hook_v"))


def value_weighted(
    pattern: Float[Tensor, "batch head dest src"], v: Float[Tensor, "batch src head d_head"]
) -> Float[Tensor, "batch head dest src"]:
    """The value-weighted pattern A_ij ||v_j||, in [0, 1]: the size of the moved values.

    Each head is scaled so that its largest entry is 1: the norms of values of different heads
    cannot be compared.
    """
    weighted = at_least_single(pattern) * at_least_single(v).norm(dim=-1).mT[:, :, None]
    return weighted / weighted.amax((-2, -1), keepdim=True).clamp(min=1e-12)
