"""What each head attends to: one mask per behaviour, one average over patterns for all of them.

A score is the attention that falls on the entries of a mask, averaged over the destinations that
have any such entry. Its chance level is the same average for a head that attends uniformly.
"""

from collections.abc import Callable

import torch
import xarray
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.labelled import Model, patterns, per_head

Mask = Bool[Tensor, "batch dest src"]
Tokens = Int[Tensor, "batch pos"]

THRESHOLD = 0.4
"A head is called by a behaviour that takes more than this share of its attention (ARENA's value)."


def to_offset(tokens: Tokens, back: int) -> Mask:
    """The entry `back` positions before the destination: 0 is the token itself."""
    n = tokens.shape[1]
    if not 0 <= back < n:
        raise ValueError(f"offset {back} does not fit into {n} tokens")
    diagonal = torch.ones(n, n, dtype=torch.bool, device=tokens.device)
    return (diagonal.tril(-back) & diagonal.triu(-back)).expand(len(tokens), n, n)


def to_first(tokens: Tokens) -> Mask:
    """Position 0, where heads rest."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return (positions == 0).expand(*tokens.shape, -1)


def to_duplicates(tokens: Tokens) -> Mask:
    """Earlier positions that hold the destination's own token."""
    same = tokens[:, :, None] == tokens[:, None, :]
    return same.tril(-1)


def to_successors(tokens: Tokens) -> Mask:
    """Positions right after an earlier copy of the destination's own token: where `A B ... A` finds
    B. This is the prefix match of Olsson et al. 2022; in `A A` it is the second A itself."""
    after = to_duplicates(tokens).roll(1, -1)
    after[:, :, 0] = False  # what rolled over the edge
    return after


def attention_on(model: Model, tokens: Tokens, mask: Mask, name: str, long_name: str) -> DataArray:
    """Mean attention on a mask, (layer, head), in [0, 1]; attrs["chance"] is a uniform head's.

    Averaged over the destinations after position 0 whose row of the mask is not empty; ValueError
    if there is none.
    """
    rows = mask.any(-1)
    rows[:, 0] = False  # position 0 can only attend to itself
    if not rows.any():
        raise ValueError(f"no destination in these tokens has anything to match for {name!r}")
    visible = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    chance = (mask.sum(-1).double() / visible)[rows].mean().item()
    layers = range(model.cfg.n_layers)
    scores = [_share(patterns(model, tokens, layer), mask, rows) for layer in layers]
    values = torch.stack(scores) if scores else torch.empty(0, model.cfg.n_heads)
    return per_head(values, name, long_name=long_name, chance=chance, bounds=(0.0, 1.0))


def _share(pattern: Tensor, mask: Mask, rows: Bool[Tensor, "batch dest"]) -> Tensor:
    on_mask = (pattern * mask[:, None]).sum(-1)
    return (on_mask * rows[:, None]).sum((0, 2)) / rows.sum()


def offset(model: Model, back: int, tokens: Tokens | None = None) -> DataArray:
    """Mean attention to the token `back` positions before, (layer, head), in [0, 1].

    On random tokens unless some are given.
    """
    tokens = _random(model) if tokens is None else tokens
    name = {0: "current_token", 1: "previous_token"}.get(back, f"offset_{back}")
    words = {0: "the current token", 1: "the previous token"}.get(back, f"{back} tokens back")
    return attention_on(model, tokens, to_offset(tokens, back), name, f"attention to {words}")


def previous_token(model: Model, tokens: Tokens | None = None) -> DataArray:
    """Mean attention to the token before, (layer, head), in [0, 1]; on random tokens by default."""
    return offset(model, 1, tokens)


def current_token(model: Model, tokens: Tokens | None = None) -> DataArray:
    """Mean attention to the token itself, (layer, head), in [0, 1]; on random tokens by default."""
    return offset(model, 0, tokens)


def first_token(model: Model, tokens: Tokens | None = None) -> DataArray:
    """Mean attention to position 0, where heads rest, (layer, head), in [0, 1]."""
    tokens = _random(model) if tokens is None else tokens
    return attention_on(model, tokens, to_first(tokens), "first_token", "attention to position 0")


def duplicate_token(model: Model, tokens: Tokens | None = None) -> DataArray:
    """Mean attention to earlier copies of the token itself, (layer, head), in [0, 1].

    On repeated random tokens unless some are given.
    """
    tokens = prompts.repeated(model) if tokens is None else tokens
    words = "attention to earlier copies of the token"
    return attention_on(model, tokens, to_duplicates(tokens), "duplicate_token", words)


def prefix_matching(model: Model, tokens: Tokens | None = None) -> DataArray:
    """Mean attention to the tokens that followed earlier copies of the current one, (layer, head),
    in [0, 1]. (Olsson et al. 2022; without tokens, on their prompt: `prompts.repeated_often`.)"""
    tokens = prompts.repeated_often(model) if tokens is None else tokens
    words = "prefix matching (share of attention)"
    return attention_on(model, tokens, to_successors(tokens), "prefix_matching", words)


def positional_preference(model: Model, tokens: Tokens | None = None, reach: int = 16) -> DataArray:
    """Mean attention at each distance back, (layer, head, offset), in [0, 1], offsets 0 to `reach`.

    attrs["chance"] is what a uniform head gives at offset 0.
    """
    tokens = _random(model) if tokens is None else tokens
    reach = min(reach, tokens.shape[1] - 1)
    scores = [offset(model, back, tokens) for back in range(reach + 1)]
    joined = xarray.concat(scores, "offset", combine_attrs="drop").assign_coords(
        offset=range(reach + 1)
    )
    attrs = {
        "long_name": "mean attention",
        "bounds": (0.0, 1.0),
        "chance": scores[0].attrs["chance"],
    }
    preference = joined.transpose("layer", "head", "offset").rename("positional_preference")
    return preference.assign_attrs(attrs)


BEHAVIOURS: dict[str, Callable[[Model], DataArray]] = {
    "previous token": previous_token,
    "current token": current_token,
    "first token": first_token,
    "duplicate token": duplicate_token,
    "induction": prefix_matching,
}


def taxonomy(model: Model, threshold: float = THRESHOLD) -> DataArray:
    """Every behaviour's score, (layer, head, behaviour), in [0, 1].

    The coordinate `role` (layer, head) names a head's largest score above the threshold, or "-".
    Resting on the first token decides only if no other behaviour does.
    """
    scores = xarray.concat(
        [score(model) for score in BEHAVIOURS.values()], "behaviour", combine_attrs="drop"
    )
    scores = scores.assign_coords(behaviour=list(BEHAVIOURS)).transpose(
        "layer", "head", "behaviour"
    )
    busy = scores.where(scores.behaviour != "first token", 0.0)
    ranked = xarray.where((busy > threshold).any("behaviour"), busy, scores)
    role = ranked.behaviour[ranked.argmax("behaviour")].where(
        ranked.max("behaviour") > threshold, "-"
    )
    attrs = {"threshold": threshold, "bounds": (0.0, 1.0), "long_name": "mean attention"}
    return (
        scores.rename("taxonomy")
        .assign_coords(role=(("layer", "head"), role.data))
        .assign_attrs(attrs)
    )


def pattern_or_value(name: str) -> bool:
    """True for the hooks of what heads look at and what they would move, for `names_filter`."""
    return name.endswith(("attn.hook_pattern", "attn.hook_v"))


def value_weighted(
    pattern: Float[Tensor, "batch head dest src"], v: Float[Tensor, "batch src head d_head"]
) -> Float[Tensor, "batch head dest src"]:
    """A_ij ||v_j||, in [0, 1]: how much is moved, not only how much is looked at.

    Each head is scaled so that its largest entry is 1: value norms do not compare across heads.
    """
    weighted = pattern * v.norm(dim=-1).mT[:, :, None]
    return weighted / weighted.amax((-2, -1), keepdim=True).clamp(min=1e-12)


def _random(model: Model) -> Tokens:
    return prompts.random_tokens(model, min(64, model.cfg.n_ctx - 1))
