"""Behaviours of heads: each has a mask [batch dest src] of the entries where a head with this
behaviour attends, and a prompt that shows the behaviour.

With `dests` a mask is made for some destinations only, so that a long context needs no full mask.
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
    """The source `back` positions before the destination; 0 is the destination itself."""
    n = tokens.shape[1]
    if not 0 <= back < n:
        raise ValueError(f"offset {back} does not fit into {n} tokens")
    positions = torch.arange(n, device=tokens.device)
    return (positions[dests, None] - positions == back).expand(len(tokens), -1, -1)


def to_first(tokens: Tokens, dests: slice = EVERY) -> Mask:
    """Position 0, where a head attends that finds no other source."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    return (positions == 0).expand(len(tokens), len(positions[dests]), -1)


def to_duplicates(
    tokens: Tokens, dests: slice = EVERY, *, cipher: Int[Tensor, " d_vocab"] | None = None
) -> Mask:
    """The earlier positions with the same token as the destination; with a `cipher`, those whose
    token t becomes it, cipher[t]."""
    positions = torch.arange(tokens.shape[1], device=tokens.device)
    seen = tokens if cipher is None else cipher[tokens]
    same = tokens[:, dests, None] == seen[:, None, :]
    return same & (positions < positions[dests, None])


def to_successors(
    tokens: Tokens, dests: slice = EVERY, *, cipher: Int[Tensor, " d_vocab"] | None = None
) -> Mask:
    """The positions right after an earlier copy of the destination's token: B in `A B ... A`. This
    is the prefix match of Olsson et al. 2022. In `A A` it is the second A itself. With a `cipher` a
    token t is a copy of cipher[t]: B in `A B ... cipher[A]`."""
    after = to_duplicates(tokens, dests, cipher=cipher).roll(1, -1)
    after[:, :, 0] = False  # roll moves the last column here
    return after


class Behaviour(NamedTuple):
    """A behaviour of a head, and the prompt that shows it."""

    mask: Callable[..., Mask]
    "The entries where the head attends: mask(tokens, dests=slice(...))."
    long_name: str
    prompt: Callable[..., Tokens]
    "The default prompt: prompt(model, bos=None)."


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
"Every behaviour by its name, which is also the role of a head with this behaviour."


def counted_destinations(mask: Mask, start: int = 0) -> Bool[Tensor, "batch dest"]:
    """The destinations in the mean of a score: all with an entry in their row of the mask, except
    position 0, which can only attend to itself. `start` is the position of the mask's first row."""
    rows = mask.any(-1)
    if start == 0:
        rows[:, 0] = False
    return rows


def uniform_attention(
    mask: Mask, rows: Bool[Tensor, "batch dest"], start: int = 0
) -> Float[Tensor, " batch"]:
    """The attention on a mask of a head that attends uniformly, summed over `rows` of the mask."""
    visible = torch.arange(start + 1, start + mask.shape[1] + 1, device=mask.device)
    return (mask.sum(-1).double() / visible * rows).sum(-1)
