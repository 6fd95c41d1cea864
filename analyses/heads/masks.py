"""The entries of a pattern that each behaviour is about, as a mask [batch dest src], with the
prompt that shows the behaviour.

Every mask can be had for some destinations only (`dests`), so that long contexts never need it
whole.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from analyses import prompts

Mask = Bool[Tensor, "batch dest src"]
Tokens = Int[Tensor, "batch pos"]
EVERY = slice(None)


def to_offset(tokens: Tokens, back: int, dests: slice = EVERY) -> Mask:
    """The entry `back` positions before the destination: 0 is the token itself."""
    n = tokens.shape[1]
    if not 0 <= back < n:
        raise ValueError(f"offset {back} does not fit into {n} tokens")
    positions = torch.arange(n, device=tokens.device)
    return (positions[dests, None] - positions == back).expand(len(tokens), -1, -1)


def to_first(tokens: Tokens, dests: slice = EVERY) -> Mask:
    """Position 0, where heads rest."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return (positions == 0).expand(len(tokens), len(positions[dests]), -1)


def to_duplicates(tokens: Tokens, dests: slice = EVERY) -> Mask:
    """Earlier positions that hold the destination's own token."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    same = tokens[:, dests, None] == tokens[:, None, :]
    return same & (positions < positions[dests, None])


def to_successors(tokens: Tokens, dests: slice = EVERY) -> Mask:
    """Positions right after an earlier copy of the destination's own token: where `A B ... A` finds
    B. This is the prefix match of Olsson et al. 2022; in `A A` it is the second A itself."""
    after = to_duplicates(tokens, dests).roll(1, -1)
    after[:, :, 0] = False  # the column that rolled over the edge
    return after


class Behaviour(NamedTuple):
    """A rule that a head may follow, and the prompt that shows it."""

    mask: Callable[..., Mask]
    "The entries that the rule is about: mask(tokens, dests=slice(...))."
    long_name: str
    prompt: Callable[..., Tokens]
    "The prompt where no tokens are given: prompt(model, bos=None)."


BEHAVIOURS: dict[str, Behaviour] = {
    "previous token": Behaviour(
        partial(to_offset, back=1), "attention to the previous token", prompts.random_tokens
    ),
    "current token": Behaviour(
        partial(to_offset, back=0), "attention to the current token", prompts.random_tokens
    ),
    "first token": Behaviour(to_first, "attention to position 0", prompts.random_tokens),
    "duplicate token": Behaviour(
        to_duplicates, "attention to earlier copies of the token", prompts.repeated
    ),
    "induction": Behaviour(
        to_successors, "prefix matching (share of attention)", prompts.repeated_often
    ),
}
"Every behaviour by its name. A head of that role follows its rule."


def counted_destinations(mask: Mask, start: int = 0) -> Bool[Tensor, "batch dest"]:
    """The destinations that a score averages over: all with anything in their row of the mask but
    position 0, which can only attend to itself. `start` is the position of the first row."""
    rows = mask.any(-1)
    if start == 0:
        rows[:, 0] = False
    return rows


def uniform_attention(
    mask: Mask, rows: Bool[Tensor, "batch dest"], start: int = 0
) -> Float[Tensor, " batch"]:
    """The attention of a uniform head on a mask, summed over these rows of the mask."""
    visible = torch.arange(start + 1, start + mask.shape[1] + 1, device=mask.device)
    return (mask.sum(-1).double() / visible * rows).sum(-1)
