"""Idealised patterns in the place of a head's own: is this all that the head attends by?

A head is ablated, and then given back with a pattern that one can write down: the token before, or
what followed earlier copies of the token. The share of the loss which that brings back says how far
the words describe the head. (Replication by Redwood Research in Olsson et al. 2022, "Comments &
Replications": 99% for a previous-token head; for induction heads some 65% by exact matches, and
another 10% by matches of two tokens.
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses.causal import ablation, metrics
from analyses.heads import attention
from analyses.labelled import to_numpy
from circuits.interventions import Cell, Metric, edit, sweep
from circuits.model import GPT, checked_tokens, components

Tokens = Int[Tensor, "batch pos"]
Mask = Bool[Tensor, "batch dest src"]
Pattern = Float[Tensor, "batch dest src"]
CLEAR = 3.0
"How many standard errors a gap must be wide to ask what is recovered of it."


def previous_token(tokens: Tokens) -> Pattern:
    """Attention to the token before; of the first token to itself."""
    return _spread(attention.to_offset(tokens, 1))


def induction(tokens: Tokens, n: int = 1) -> Pattern:
    """Attention to what followed earlier copies of the token, evenly; to the first token where
    there are none. With n > 1, of these to those alone that match most tokens in a row, up to n:
    A B C ... A B finds C. ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"a match is of one token or more, got {n=}")
    matched = attention.to_duplicates(tokens)
    found = attention.to_successors(tokens)
    for _ in range(n - 1):
        matched = matched & _one_on(matched)
        longer = _one_on(matched, dest=0)
        found = torch.where(longer.any(-1, keepdim=True), longer, found)
    return _spread(found)


def uniform(tokens: Tokens) -> Pattern:
    """Attention to all tokens up to here alike: the control."""
    n = tokens.shape[1]
    return _spread(torch.ones_like(tokens, dtype=torch.bool)[:, None].expand(-1, n, -1).tril())


PATTERNS: Mapping[str, Callable[[Tokens], Pattern]] = {
    "previous token": previous_token,
    "induction": induction,
    "induction, 2 tokens": partial(induction, n=2),
    "uniform": uniform,
}


def substituted(
    model: GPT,
    tokens: Tokens,
    names: ablation.Names,
    patterns: Mapping[str, Pattern] | None = None,
    *,
    metric: Metric | None = None,
    by: str = "zero",
    reference: ablation.Reference | None = None,
    **how: Any,
) -> DataArray:
    """The metric with each pattern in the place of a head's own, or of several heads' together,
    (component, pattern, example); by default the mean loss in nats, and all of PATTERNS.

    The coordinate `base` (component, example) is that without the heads, ablated `by` zero, mean or
    resampling of `reference`; `source` that of the model as it is, as patching.recovered reads them
    of one component. ValueError for what is no head, and for a pattern of another shape.
    """
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    if patterns is None:
        patterns = {name: pattern(tokens) for name, pattern in PATTERNS.items()}
    metric = metric or metrics.next_token_loss(model, tokens)
    sets = ablation.sets(names)
    without = ablation.ablated(model, tokens, names, metric=metric, by=by, reference=reference)
    cells = [_cell(model, tokens, one, pattern) for one in sets for pattern in patterns.values()]
    values = sweep(model, tokens, cells, metric, **how)
    return DataArray(
        to_numpy(values.unflatten(0, (len(sets), len(patterns)))),
        dims=("component", "pattern", "example"),
        coords={"component": without.component.values, "pattern": list(patterns),
                "example": without.example.values, "source": ("example", without.base.values),
                "base": (("component", "example"), without.values)},
        name="substituted",
        attrs={"long_name": "metric with idealised patterns", "by": by},
    )  # fmt: skip


def recovered(result: DataArray) -> Dataset:
    """Of what `substituted` gives: the `share` (component, pattern) of the gap between the model
    without the heads and as it is that a pattern recovers, 0 none and 1 all, and its standard
    `error` over examples (jackknife); `gap` and `gap_error`, in the metric's unit.

    NaN where there is no gap to speak of: none, or under CLEAR errors wide, or in the wrong
    direction. ValueError for fewer than two examples.
    """
    n = result.sizes["example"]
    if n < 2:
        raise ValueError(f"an error wants at least two examples, got {n}")
    gaps, gains = result.base - result.source, result.base - result
    gap, gap_error = gaps.mean("example"), gaps.std("example", ddof=1) / np.sqrt(n)
    without_one = (gains.sum("example") - gains) / (gaps.sum("example") - gaps)
    error = np.sqrt(n - 1) * without_one.std("example")
    share, clear = gains.mean("example") / gap, (gap > CLEAR * gap_error) & (gap > 1e-9)
    measured = {"share": share.where(clear), "error": error.where(clear)}
    return Dataset({**measured, "gap": gap, "gap_error": gap_error}, attrs=result.attrs)


def _spread(mask: Mask) -> Pattern:
    """Evenly over the sources of a mask; on the first token where there is none."""
    first = torch.zeros_like(mask)
    first[..., 0] = True
    chosen = torch.where(mask.any(-1, keepdim=True), mask, first).float()
    return chosen / chosen.sum(-1, keepdim=True)


def _one_on(mask: Mask, dest: int = 1) -> Mask:
    """The mask one source later, and one destination later."""
    moved = mask.roll((dest, 1), (-2, -1))
    moved[..., 0] = False  # what rolled over the edge
    moved[:, :dest] = False
    return moved


def _cell(model: GPT, tokens: Tokens, heads: Sequence[str], pattern: Pattern) -> Cell:
    wanted = [*tokens.shape, tokens.shape[1]]
    if list(pattern.shape) != wanted:
        raise ValueError(f"these tokens want a pattern {wanted}, got {list(pattern.shape)}")
    every = pattern[:, None].to(model.W_E.device).expand(-1, model.cfg.n_heads, -1, -1)
    found = [components.head(model.cfg, name) for name in heads]
    return [edit(model, ("pattern", head.layer), every, head=head.head) for head in found]
