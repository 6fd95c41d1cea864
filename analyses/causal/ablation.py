"""Ablation: the metric without a component. `Task.replace` says what the component writes instead:
zero, its mean, its value in another example, or its value in the corrupted run.

The names of components are embed, pos, L0H1 (a head), L0 attn (the attention of a layer), MLP0, and
MLP0N17 (a neuron). A path "L0H1 > L1H3.K" ablates the head L0H1 for this reader alone. The bias b_V
belongs to its head. b_O belongs to L0 attn and b_out to MLP0, but not to a head or a neuron.

Full ablation lets everything behind the component react. Pattern-preserving ablation keeps every
attention pattern as in the clean run, so the component changes no pattern. In an attention-only
model with frozen norms its effect is the sum of all paths through the component. For a
previous-token head the two kinds give opposite results. (Olsson et al. 2022, "Ablations",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, concat

from analyses.causal import path_patching
from analyses.causal.patching import label_run, sweep_cells
from analyses.causal.task import Task
from analyses.labelled import per_head
from analyses.losses import of_stream
from circuits.hooks import Cache, CacheKey
from circuits.interventions import (
    MEMORY,
    Cell,
    edit,
    frozen_patterns,
    means,
    resample,
    run_cells,
    zeros,
)
from circuits.model import GPT, Head, Writer, check_predicts, checked_tokens, components

KINDS = ("full", "pattern-preserving")
"The two kinds of ablation."
TOGETHER = 32
"The number of experiments whose edits are in memory at a time."
PATTERNS = 2**21
"The number of entries of one layer's patterns that are in memory at a time."
Rows = Int[Tensor, "batch pos"]
Names = str | Sequence[str | Sequence[str]]
"Components, each ablated on its own; the components of an inner sequence are ablated together."


def ablate(
    task: Task,
    names: Names,
    *,
    kind: str = "full",
    by_position: bool = True,
    pos: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    progress: bool = False,
) -> DataArray:
    """The metric of the clean run without each component, (component, example). The coordinate
    `base` is the metric of the clean run; patching.summary reads the result.

    Means are taken at each position, or over all positions (by_position=False). With `pos`, the
    component is ablated at one position alone. `seed` draws the other examples of resampling. Write
    several readers of one path as "L0H1 > L1H3.K, L1H3.V". `memory` and `progress` are as in
    patching.positions. ValueError for components that do not exist, and for a path in a set.
    """
    _check_kind(kind)
    experiments = _experiments(task.model, names)
    base, rows = task.clean_run, []
    for start in range(0, len(experiments), TOGETHER):
        cells = [
            _cell(task, one, kind, by_position, pos, seed)
            for one in experiments[start : start + TOGETHER]
        ]
        rows.append(sweep_cells(task, base, cells, "components ablated", memory, progress))
    labels = [one.label for one in experiments]
    words = f"metric with {task.replace} for a component"
    found = label_run(torch.cat(rows), base, {"component": labels}, "ablated", words)
    return found.assign_attrs(replace=task.replace, kind=kind)


def by_kind(
    task: Task,
    names: Names,
    *,
    by_position: bool = True,
    pos: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    progress: bool = False,
) -> DataArray:
    """`ablate` in full and with patterns preserved, (component, ablation, example). Its mean over
    examples is a table. A component that only full ablation harms works through the attention of
    later heads. The arguments are the same as in `ablate`."""
    both = [
        ablate(task, names, kind=kind, by_position=by_position, pos=pos, seed=seed, memory=memory,
                progress=progress) for kind in KINDS
    ]  # fmt: skip
    joined = concat(both, "ablation", combine_attrs="drop_conflicts")
    return joined.assign_coords(ablation=list(KINDS)).transpose("component", "ablation", "example")


def of_heads(model: GPT, tokens: Rows) -> DataArray:
    """The rise of the mean loss in nats when a head writes zero, (layer, head, ablation).

    attrs["loss"] is the loss of the whole model. If full ablation of a head costs much and
    pattern-preserving ablation costs nothing, the head works through the attention of later heads.
    """
    tokens = checked_tokens(tokens, model.cfg)
    places = torch.ones_like(tokens[:, 1:], device="cpu").nonzero()
    whole, without = losses(model, tokens, *places.unbind(-1))
    rise = without.double().mean(-1) - whole.double().mean()
    words = "rise of the loss without the head"
    table = per_head(rise, "ablation", "ablation", units="nats", long_name=words)
    return table.assign_coords(ablation=list(KINDS)).assign_attrs(loss=float(whole.mean()))


def losses(
    model: GPT, rows: Rows, example: Int[Tensor, "token"], index: Int[Tensor, "token"]
) -> tuple[Float[Tensor, "token"], Float[Tensor, "layer head ablation token"]]:
    """`losses_without` each head on its own, by layer and head."""
    every = [[head] for head in components.every_head(model.cfg)]
    whole, without = losses_without(model, rows, every, example, index)
    return whole, without.unflatten(0, (model.cfg.n_layers, model.cfg.n_heads))


def losses_without(
    model: GPT,
    rows: Rows,
    sets: Sequence[Sequence[Head]],
    example: Int[Tensor, "token"],
    index: Int[Tensor, "token"],
) -> tuple[Float[Tensor, "token"], Float[Tensor, "set ablation token"]]:
    """The loss in nats of the tokens rows[example, index + 1], of the model and of the model
    without the heads of each set together, by KINDS; the heads write zero. A few rows are run at a
    time, and only the tokens that are asked for are unembedded. Both results are on the CPU."""
    check_predicts(model.cfg, "the next-token loss")
    cfg, device = model.cfg, model.W_E.device
    whole = torch.empty(len(example))
    without = torch.empty(len(sets), len(KINDS), len(example))
    few = max(1, PATTERNS // (cfg.n_heads * rows.shape[1] ** 2))
    for first in range(0, len(rows), few):
        here = (example >= first) & (example < first + few)
        if here.any():
            part = rows[first : first + few].to(device)
            at = ((example[here] - first).to(device), index[here].to(device))
            whole[here], without[..., here] = _losses(model, part, sets, at)
    return whole, without


def component_sets(names: Names) -> list[list[str]]:
    """The components of each experiment. ValueError where an experiment has none."""
    every = [names] if isinstance(names, str) else names
    found = [[one] if isinstance(one, str) else list(one) for one in every]
    if not found or not all(found):
        raise ValueError(f"there is nothing to ablate in {names!r}")
    return found


@torch.no_grad()
def _losses(
    model: GPT,
    rows: Rows,
    sets: Sequence[Sequence[Head]],
    at: tuple[Int[Tensor, "token"], Int[Tensor, "token"]],
) -> tuple[Float[Tensor, "token"], Float[Tensor, "set ablation token"]]:
    n_layers = model.cfg.n_layers
    tokens, targets = rows[:, :-1], rows[:, 1:][at].long()
    final, cache = model.run_with_cache(
        tokens,
        stop_at_layer=n_layers,
        names_filter=lambda name: name.endswith(("hook_z", "hook_pattern")),
    )
    if not sets:
        return of_stream(model, final[at], targets).cpu(), torch.empty(0, 2, len(targets))
    last = f"blocks.{n_layers - 1}.hook_resid_post"
    cells, places = _cells_of_sets(model, cache, sets)
    streams = run_cells(model, tokens, cells, [last])[last].unflatten(0, (-1, len(tokens)))
    found = [of_stream(model, stream[at], targets).cpu() for stream in streams]
    without = [torch.stack([found[number] for number in pair]) for pair in places]
    return of_stream(model, final[at], targets).cpu(), torch.stack(without)


def _cells_of_sets(
    model: GPT, cache: Cache, sets: Sequence[Sequence[Head]]
) -> tuple[list[Cell], list[tuple[int, int]]]:
    """The edits that silence each set, and the places among them of both KINDS: it is one run where
    no later pattern is there to be kept."""
    cells: list[Cell] = []
    places = []
    for heads in sets:
        cell = [edit(model, ("z", layer), zeros(cache, ("z", layer)), head=head)
                for layer, head in heads]  # fmt: skip
        first = min(layer for layer, _ in heads)
        later = frozen_patterns(model, cache, range(first + 1, model.cfg.n_layers))
        places.append((len(cells), len(cells) + bool(later)))
        cells += [cell, [*cell, *later]] if later else [cell]
    return cells, places


@dataclass(frozen=True)
class _Experiment:
    """Components that are ablated together; or one sender and the readers of its paths."""

    label: str
    writers: Sequence[Writer]
    readers: Sequence[str] = ()


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r}; choose one of {list(KINDS)}")


def _experiments(model: GPT, names: Names) -> list[_Experiment]:
    return [
        _path(model, one[0]) if len(one) == 1 and ">" in one[0] else _set(model, one)
        for one in component_sets(names)
    ]


def _set(model: GPT, names: Sequence[str]) -> _Experiment:
    if any(">" in name for name in names):
        raise ValueError(f"a path is an experiment of its own, got one in {list(names)}")
    writers = [components.writer(model.cfg, name) for name in names]
    return _Experiment(" + ".join(names), sorted(writers, key=_order))


def _order(writer: Writer) -> tuple[int, bool]:
    """The place of a writer in a run: layer by layer, heads before neurons."""
    return -1 if writer.layer is None else writer.layer, writer.point in ("post", "mlp_out")


def _path(model: GPT, name: str) -> _Experiment:
    sender, _, after = name.partition(">")
    readers = [reader.strip() for reader in after.split(",")]
    writer = components.writer(model.cfg, sender.strip())
    path_patching.check_order(model, [writer.name], readers)
    return _Experiment(name, [writer], readers)


def _replacement(task: Task, key: CacheKey, by_position: bool, seed: int) -> Tensor:
    """The value that is written at a hook point instead, for each example or with a batch of 1."""
    clean, other = task.clean_run.cache, task.corrupted_run.cache
    here, there = clean[key].shape, other[key].shape
    if task.replace == "zero":
        return zeros(clean, key)
    if task.replace == "mean" and not by_position:
        return means(other, key, by_position=False)[:, :1].expand(1, *here[1:])
    if here[1] != there[1] or (task.replace != "mean" and here[0] != there[0]):
        raise ValueError(
            f"for {list(here[:2])} tokens replace={task.replace!r} wants corrupted tokens of that "
            f"size, got {list(there[:2])}"
        )
    if task.replace == "run":
        return other[key]
    return means(other, key) if task.replace == "mean" else resample(other, key, seed=seed)


def _cell(
    task: Task, experiment: _Experiment, kind: str, by_position: bool, pos: int | None, seed: int
) -> Cell:
    """The edits of one experiment."""
    model, base, first = task.model, task.clean_run, experiment.writers[0]
    layers = range(first.layer or 0, model.cfg.n_layers) if kind != "full" else ()
    frozen, cell = frozen_patterns(model, base.cache, layers), []
    for writer in experiment.writers:
        values = _replacement(task, writer.key, by_position, seed)
        if writer.neuron is not None:
            values = _with_neuron(task, writer, values, [*frozen, *cell] if cell else [])
        cell.append(edit(model, writer.key, values, pos=pos, head=writer.head))
    if experiment.readers:
        others = path_patching.frozen_edits(model, base.cache)
        sent = path_patching.first_run(model, others, cell)
        (cell,) = path_patching.second_runs(model, base, [sent], experiment.readers)
    return [*frozen, *cell]


def _with_neuron(task: Task, writer: Writer, values: Tensor, before: Cell) -> Tensor:
    """The outputs of all neurons of a layer after earlier edits, one of them replaced."""
    base = task.clean_run
    name, post = base.cache.full_name(writer.key), base.cache[writer.key]
    if before:
        post = run_cells(task.model, base.tokens, [before], [name])[name]
    post = post.clone()
    post[..., writer.neuron] = values[..., writer.neuron]
    return post
