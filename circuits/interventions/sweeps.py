"""What is done to a run: `sweep` runs many experiments together, with the numbers of one run each.

An experiment is a Cell, the edits of one run (edits.py, whose names are also found here).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits import distributed
from circuits.hooks import Cache, HookPoint
from circuits.interventions.batches import Begun, Sizes, Start, batches, begun
from circuits.interventions.edits import (
    Cell,
    Edit,
    as_hooks,
    check_values,
    edit,
    edited,
    frozen_patterns,
    means,
    resampled,
    start,
    steer,
    zeros,
)
from circuits.model import GPT, checked_tokens

__all__ = ["MEMORY", "Cell", "Edit", "Metric", "as_hooks", "edit", "frozen_patterns", "judged",
           "means", "resampled", "run_cells", "steer", "sweep", "zeros"]  # fmt: skip

Metric = Callable[[Float[Tensor, "batch ..."]], Float[Tensor, "*batch"]]
"""Logits -> one number for each example, or one for the whole batch, as TransformerLens's metrics
give it: of all positions [batch pos d_vocab], or where `at` says, [batch d_vocab]."""
MEMORY = 2**30


def judged(
    metric: Metric, logits: Float[Tensor, "batch ..."], run: str | None = None
) -> Float[Tensor, " example"]:
    """What a metric says of a run: a number for each example, or one alone for the batch. This is
    the one place that knows both forms: all else finds an axis of examples. ValueError for anything
    else, and where the `run` is named, for numbers that are not finite."""
    values, batch = metric(logits), len(logits)
    got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if got not in ([batch], [], [1]):
        raise ValueError(f"the metric must give one number for each of {batch} examples, a tensor "
                         f"[{batch}], or one for all, a tensor []; it gives {got}")  # fmt: skip
    if run is not None and not values.isfinite().all():
        raise ValueError(f"of {run} the metric gives {values.tolist()}: it must be finite")
    return values.reshape(-1)


def sweep(
    model: GPT,
    tokens: Int[Tensor, "batch pos"],
    cells: Sequence[Cell],
    metric: Metric,
    *,
    at: int | Int[Tensor, " batch"] | None = None,
    memory: int = MEMORY,
    progress: Callable[[int], Any] = lambda done: None,
) -> Float[Tensor, "cell example"]:
    """The metric of each experiment for each example, or [cell 1] of a metric that gives one number
    for the batch: what one run with its edits would give.

    What lies before the first layer and position that an experiment edits is not run again (see
    batches.py), experiments that begin alike run as one batch, and logits are made only `at` the
    position that the metric looks at: one for all examples, or one each; without it, at all.
    `memory` bounds the bytes of activations of a batch by an estimate from above; `progress` is
    told how many experiments are done. In a process group each process runs its share and all get
    the results. Gradients are not kept. ValueError, before any of them runs, for a metric that does
    not give finite numbers (see `judged`), and for values that do not fit the run.

    Hooks that are attached stay in force, and see experiments from their first layer on; while
    there are any, at all positions, so that they find each where they know it. So do experiments
    on bidirectional attention, which hands a change on to earlier positions too.
    """
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    where = _places(at, tokens)
    check_values(model, cells, tokens)
    starts = [start(model, cell) for cell in cells]
    if not model.cfg.causal or any(point.has_active_hooks for point in model.hook_dict.values()):
        starts = [Start(layer, 0) for layer, _ in starts]
    by_position = any(pos for _, pos in starts)
    names = {one.name for cell in cells for one in cell}
    sizes = Sizes(model, tokens, where is None, by_position, names)
    with torch.no_grad():
        clean = begun(model, tokens, by_position)
        logits = _logits(model, clean.streams[-1], where)
        base = judged(metric, logits, "the run without edits")
        results = base.new_zeros(len(cells), len(base))
        mine = range(distributed.rank(), len(cells), distributed.world())
        late = [i for i in mine if not cells[i] or _comes_after(starts[i], where)]
        results[late] = base
        progress(len(late))
        rest = sorted(set(mine) - set(late))
        for begin, numbers in batches(starts, rest, sizes, memory):
            chosen = [cells[number] for number in numbers]
            results[numbers] = _run(model, clean, begin, chosen, metric, where, logits)
            progress(len(numbers))
    return distributed.total(results)


def run_cells(
    model: GPT,
    tokens: Int[Tensor, "batch pos"],
    cells: Sequence[Cell],
    names: Sequence[str],
    *,
    memory: int = MEMORY,
) -> Cache:
    """What the runs of several experiments have at some hook points: [cell*batch ...], cell after
    cell. Each runs from the first layer that it edits on, and in batches as in a sweep."""
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    wanted = model.hook_names(list(names))
    check_values(model, cells, tokens)
    starts = [Start(start(model, cell).layer, 0) for cell in cells]
    heard = [*wanted, *(one.name for cell in cells for one in cell)]
    sizes = Sizes(model, tokens, every=False, names=heard)
    with torch.no_grad():
        clean = begun(model, tokens, by_position=False)
        _, own = model.run_with_cache(tokens, None, names_filter=wanted)
        seen = {name: [own[name]] * len(cells) for name in wanted}
        for begin, numbers in batches(starts, range(len(cells)), sizes, memory):
            rows = clean.copies(len(numbers), begin)
            run: dict[str, Tensor] = {}
            keep = [(name, partial(_keep, run)) for name in wanted]
            with edited(model, [cells[number] for number in numbers], then=keep):
                model(**rows, return_type=None)
            for name, values in run.items():
                for number, one in zip(numbers, values.chunk(len(numbers)), strict=True):
                    seen[name][number] = one
    whole = {name: torch.cat(values) for name, values in seen.items()}
    return Cache(whole, own.n_layers, dict.fromkeys(model.hook_dict, False), wanted, model)


def _keep(run: dict[str, Tensor], activation: Tensor, hook: HookPoint) -> None:
    """Note what a run has at a hook point; ln1 passes again for each listened q/k/v_input."""
    run.setdefault(hook.name, activation.clone())


def _run(
    model: GPT,
    clean: Begun,
    begin: Start,
    cells: Sequence[Cell],
    metric: Metric,
    where: Int[Tensor, " batch"] | None,
    base: Tensor,
) -> Float[Tensor, "cell example"]:
    """The metric of several experiments in one batch; `base` has the logits of the clean run, which
    are theirs too before the position where they begin."""
    n, batch = len(cells), len(clean.tokens)
    here = None if where is None else (where - begin.pos).clamp(min=0)
    with edited(model, cells, begin.pos):
        resid = model(**clean.copies(n, begin), stop_at_layer=model.cfg.n_layers)
        logits = _logits(model, resid, here).unflatten(0, (n, batch))
    if where is None:
        before = base[:, : begin.pos]
        return torch.stack([judged(metric, torch.cat([before, one], 1)) for one in logits])
    changed = (where >= begin.pos)[:, None]
    return torch.stack([judged(metric, torch.where(changed, one, base)) for one in logits])


def _logits(
    model: GPT, resid: Float[Tensor, "row pos d_model"], where: Int[Tensor, " batch"] | None
) -> Float[Tensor, "row *pos d_vocab"]:
    """Logits at all positions, or where each example's metric looks."""
    if where is None:
        return model.unembed(model.ln_final(resid))
    if any(
        model.hook_dict[name].has_active_hooks for name in model.hook_dict if "ln_final" in name
    ):
        return model.unembed(_taken(model.ln_final(resid), where)[:, None])[:, 0]
    return model.unembed(model.ln_final(_taken(resid, where)[:, None]))[:, 0]


def _taken(
    rows: Float[Tensor, "row pos d_model"], where: Int[Tensor, " batch"]
) -> Float[Tensor, "row d_model"]:
    """Each row at the position of its example."""
    every = torch.arange(len(rows), device=rows.device)
    return rows[every, where.repeat(len(rows) // len(where))]


def _places(at: Any, tokens: Tensor) -> Int[Tensor, " batch"] | None:
    if at is None:
        return None
    batch, n = tokens.shape
    where = torch.as_tensor(at, device=tokens.device).expand(batch)
    if not ((where >= -n) & (where < n)).all():
        raise ValueError(f"at={at} is outside of {n} positions")
    return where % n


def _comes_after(begin: Start, where: Int[Tensor, " batch"] | None) -> bool:
    """True if an experiment begins only after what the metric looks at."""
    return where is not None and bool((where < begin.pos).all())
