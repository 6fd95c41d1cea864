"""Sweeps: many experiments in few runs. An experiment is a Cell, the edits of one run.

Each experiment gets the numbers that a run with its edits alone would give.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits import distributed
from circuits.decomposition import check_positions, logits_at
from circuits.hooks import Cache, HookPoint
from circuits.interventions.batches import CleanRun, Sizes, Start, batches, run_clean
from circuits.interventions.edits import Cell, apply_edits, check_values, start
from circuits.model import GPT, checked_tokens

Metric = Callable[[Float[Tensor, "batch ..."]], Float[Tensor, "*batch"]]
"""A function of logits that gives one number for each example, or one number for the batch. The
logits are of all positions [batch pos d_vocab], or of the position `at` [batch d_vocab]."""
MEMORY = 2**30
"The bytes of activations that a sweep may hold, by default."


def evaluate_metric(
    metric: Metric, logits: Float[Tensor, "batch ..."], run: str | None = None
) -> Float[Tensor, " example"]:
    """The metric of a run: one number for each example, or one number for the batch as a tensor of
    length 1, so that results always have a dim of examples. ValueError for another shape. If `run`
    names the run, also ValueError for numbers that are not finite."""
    values, batch = metric(logits), len(logits)
    got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if got not in ([batch], [], [1]):
        raise ValueError(
            f"the metric must give one number for each of {batch} examples, a tensor [{batch}], or "
            f"one for all, a tensor []; it gives {got}"
        )
    if run is not None and not values.isfinite().all():
        raise ValueError(f"the metric of {run} is {values.tolist()}: it must be finite")
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
    """The metric of each experiment for each example. A metric that gives one number for the batch
    has the shape [cell 1].

    `at` is the position of the logits that the metric gets: one for all examples, or one for each;
    with None the metric gets all positions. `memory` limits the bytes of activations of a batch, by
    an upper estimate. `progress` is called with the number of experiments that were just done. In a
    process group each process runs its share, and all processes get all results. Gradients are not
    kept. ValueError, before any experiment runs, if the metric of the run without edits is not
    finite or has a wrong shape, and for values that do not fit the run.

    An experiment runs only from the first layer and position that it edits (see batches.py).
    Experiments with the same start share a batch. Hooks that are attached are active, from the
    first edited layer of an experiment on. With hooks, and with bidirectional attention, an
    experiment runs at all positions.
    """
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    where = None if at is None else check_positions(at, tokens)
    check_values(model, cells, tokens)
    starts = [start(model, cell) for cell in cells]
    if not model.cfg.causal or any(point.has_active_hooks for point in model.hook_dict.values()):
        starts = [Start(layer, 0) for layer, _ in starts]
    by_position = any(pos for _, pos in starts)
    names = {one.name for cell in cells for one in cell}
    sizes = Sizes(model, tokens, where is None, by_position, names)
    with torch.no_grad():
        clean = run_clean(model, tokens, by_position)
        logits = _logits(model, clean.streams[-1], where)
        base = evaluate_metric(metric, logits, "the run without edits")
        results = base.new_zeros(len(cells), len(base))
        mine = range(distributed.rank(), len(cells), distributed.world())
        unchanged = [i for i in mine if not cells[i] or _comes_after(starts[i], where)]
        results[unchanged] = base
        progress(len(unchanged))
        rest = sorted(set(mine) - set(unchanged))
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
    """The activations of several experiments at some hook points, [cell*batch ...], cell after
    cell. Each experiment runs from the first layer that it edits, in batches as in a sweep."""
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    wanted = model.hook_names(list(names))
    check_values(model, cells, tokens)
    starts = [Start(start(model, cell).layer, 0) for cell in cells]
    hooked = [*wanted, *(one.name for cell in cells for one in cell)]
    sizes = Sizes(model, tokens, every=False, names=hooked)
    with torch.no_grad():
        clean = run_clean(model, tokens, by_position=False)
        _, own = model.run_with_cache(tokens, None, names_filter=wanted)
        seen = {name: [own[name]] * len(cells) for name in wanted}
        for begin, numbers in batches(starts, range(len(cells)), sizes, memory):
            rows = clean.copies(len(numbers), begin)
            run: dict[str, Tensor] = {}
            keep = [(name, partial(_keep, run)) for name in wanted]
            with apply_edits(model, [cells[number] for number in numbers], then=keep):
                model(**rows, return_type=None)
            for name, values in run.items():
                for number, one in zip(numbers, values.chunk(len(numbers)), strict=True):
                    seen[name][number] = one
    whole = {name: torch.cat(values) for name, values in seen.items()}
    return Cache(whole, own.n_layers, dict.fromkeys(model.hook_dict, False), wanted, model)


def _keep(run: dict[str, Tensor], activation: Tensor, hook: HookPoint) -> None:
    """Keep the first activation of a hook point: ln1 runs once more for each edited q/k/v_input."""
    run.setdefault(hook.name, activation.clone())


def _run(
    model: GPT,
    clean: CleanRun,
    begin: Start,
    cells: Sequence[Cell],
    metric: Metric,
    where: Int[Tensor, " batch"] | None,
    base: Tensor,
) -> Float[Tensor, "cell example"]:
    """The metric of several experiments in one batch. `base` has the logits of the clean run:
    before the position where an experiment begins, its logits are the same."""
    n, batch = len(cells), len(clean.tokens)
    here = None if where is None else (where - begin.pos).clamp(min=0)
    with apply_edits(model, cells, begin.pos):
        resid = model(**clean.copies(n, begin), stop_at_layer=model.cfg.n_layers)
        logits = _logits(model, resid, here).unflatten(0, (n, batch))
    if where is None:
        before = base[:, : begin.pos]
        return torch.stack([evaluate_metric(metric, torch.cat([before, one], 1)) for one in logits])
    changed = (where >= begin.pos)[:, None]
    return torch.stack([evaluate_metric(metric, torch.where(changed, one, base)) for one in logits])


def _logits(
    model: GPT, resid: Float[Tensor, "row pos d_model"], where: Int[Tensor, " batch"] | None
) -> Float[Tensor, "row *pos d_vocab"]:
    """The logits of each row at all positions, or at the position of its example."""
    if where is not None:
        where = where.repeat(len(resid) // len(where))
    hooked = (point for name, point in model.hook_dict.items() if name.startswith("ln_final"))
    if where is not None and any(point.has_active_hooks for point in hooked):
        rows = torch.arange(len(resid), device=resid.device)
        return model.unembed(model.ln_final(resid)[rows, where][:, None])[:, 0]
    return logits_at(model, resid, where)


def _comes_after(begin: Start, where: Int[Tensor, " batch"] | None) -> bool:
    """True if an experiment changes only positions after the position that the metric gets."""
    return where is not None and bool((where < begin.pos).all())
