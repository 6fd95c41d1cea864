"""Idealised patterns: does a simple rule describe the attention of a head?

A head is ablated. Then it gets a pattern that a rule gives: attention to the token before, or to
the tokens that followed earlier copies of this token. The share of the lost metric that comes back
says how well the rule describes the head. (Replication by Redwood Research in Olsson et al. 2022,
"Comments & Replications": 99% for a previous-token head; for induction heads some 65% by exact
matches, and another 10% by matches of two tokens.
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses.causal import ablation
from analyses.causal.patching import label_run, sweep_cells
from analyses.causal.task import Task
from analyses.heads import masks
from circuits.interventions import MEMORY, Edit, edit
from circuits.model import GPT, Head, components

Tokens = Int[Tensor, "batch pos"]
Mask = Bool[Tensor, "batch dest src"]
Pattern = Float[Tensor, "batch dest src"]
OfHead = Callable[[Head], Pattern]
"A pattern of each head's own making."
CLEAR = 3.0
"A share is given only if the gap is wider than this number of standard errors."


def previous_token(tokens: Tokens) -> Pattern:
    """Attention to the token before. The first token attends to itself."""
    return _spread(masks.to_offset(tokens, 1))


def induction(tokens: Tokens, n: int = 1) -> Pattern:
    """Even attention to the tokens that followed earlier copies of this token; attention to the
    first token where there are none. With n > 1, attention goes to the longest matches alone, of up
    to n tokens in a row: A B C ... A B finds C. ValueError for n < 1."""
    if n < 1:
        raise ValueError(f"a match is of one token or more, got {n=}")
    matched = masks.to_duplicates(tokens)
    found = masks.to_successors(tokens)
    for _ in range(n - 1):
        matched = matched & _shift(matched)
        longer = _shift(matched, dest=0)
        found = torch.where(longer.any(-1, keepdim=True), longer, found)
    return _spread(found)


def positional(own: Pattern) -> Pattern:
    """The mean attention of a head by distance, scaled in each row so that the sources that exist
    sum to 1. It is the pattern of a head that uses positions and no tokens."""
    n = own.shape[-1]
    distance = (torch.arange(n)[:, None] - torch.arange(n)).clamp(min=0).to(own.device)
    seen = torch.ones(n, n, dtype=torch.bool, device=own.device).tril()
    by_distance = own.new_zeros(n).index_add_(0, distance[seen], own.mean(0)[seen])
    by_distance = by_distance / seen.sum(0).to(own.dtype)  # n - d rows have distance d
    kernel = by_distance[distance].where(seen, 0)
    return (kernel / kernel.sum(-1, keepdim=True).clamp(min=1e-12)).expand_as(own)


def own_on_matches(own: Pattern, tokens: Tokens) -> Pattern:
    """The attention of a head to the tokens that followed earlier copies of this token. The rest of
    its attention goes to the first token."""
    kept = own * masks.to_successors(tokens).to(own.device)
    kept[..., 0] += 1 - kept.sum(-1)
    return kept


def uniform(tokens: Tokens) -> Pattern:
    """Even attention to all tokens up to this one: the control."""
    n = tokens.shape[1]
    return _spread(torch.ones_like(tokens, dtype=torch.bool)[:, None].expand(-1, n, -1).tril())


PATTERNS: Mapping[str, Callable[[Tokens], Pattern]] = {
    "previous token": previous_token,
    "induction": induction,
    "induction, 2 tokens": partial(induction, n=2),
    "uniform": uniform,
}


def substitute(
    task: Task,
    names: ablation.Names,
    patterns: Mapping[str, Pattern | OfHead] | None = None,
    *,
    memory: int = MEMORY,
    progress: bool = False,
) -> DataArray:
    """The metric when a head, or several heads together, has a given pattern instead of its own,
    (component, pattern, example). By default each of PATTERNS is used. A function
    gives each head a pattern of its own.

    The coordinate `base` (component, example) is the metric without the heads, ablated as
    `task.replace` says. `source` is the metric of the clean run. patching.recovery reads the result
    of one component. `memory` and `progress` are as in patching.positions. ValueError for a name
    that is no head, and for a pattern of another shape.
    """
    model, tokens = task.model, task.clean
    if patterns is None:
        patterns = {name: pattern(tokens) for name, pattern in PATTERNS.items()}
    sets = ablation.component_sets(names)
    without = ablation.ablate(task, names)
    cells = [_cell(model, tokens, one, pattern) for one in sets for pattern in patterns.values()]
    values = sweep_cells(task, task.clean_run, cells, "patterns replaced", memory, progress)
    coords = {"component": without.component.values, "pattern": list(patterns)}
    words = "metric with idealised patterns"
    found = label_run(values, task.clean_run, coords, "substituted", words)
    ends = {"source": without.base, "base": without}
    return found.assign_coords({name: one.variable for name, one in ends.items()}).assign_attrs(
        replace=task.replace
    )


def recovery(result: DataArray) -> Dataset:
    """The `share` of the lost metric that each pattern recovers, (component, pattern), and its
    standard `error` over examples (jackknife). The share is 0 for none of it and 1 for all of it.
    `gap` is the metric without the heads less the metric of the whole model, and `gap_error` its
    error, both in the metric's unit. `result` is from `substitute`.

    The share is NaN where the gap is negative, or less than CLEAR errors wide. ValueError for fewer
    than two examples.
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
    """Even attention to the sources of a mask, or to the first token where the mask is empty."""
    first = torch.zeros_like(mask)
    first[..., 0] = True
    chosen = torch.where(mask.any(-1, keepdim=True), mask, first).float()
    return chosen / chosen.sum(-1, keepdim=True)


def _shift(mask: Mask, dest: int = 1) -> Mask:
    """The mask moved by one source, and by `dest` destinations."""
    moved = mask.roll((dest, 1), (-2, -1))
    moved[..., 0] = False  # `roll` puts the last source first
    moved[:, :dest] = False
    return moved


def _cell(
    model: GPT, tokens: Tokens, heads: Sequence[str], pattern: Pattern | OfHead
) -> list[Edit]:
    return [
        _edit(model, tokens, head, pattern(head) if callable(pattern) else pattern)
        for head in (components.head(model.cfg, name) for name in heads)
    ]


def _edit(model: GPT, tokens: Tokens, head: Head, pattern: Pattern) -> Edit:
    wanted = [*tokens.shape, tokens.shape[1]]
    if list(pattern.shape) != wanted:
        raise ValueError(f"these tokens want a pattern {wanted}, got {list(pattern.shape)}")
    every = pattern[:, None].to(model.W_E.device).expand(-1, model.cfg.n_heads, -1, -1)
    return edit(model, ("pattern", head.layer), every, head=head.head)
