"""What a part of a model is worth: what changes when it writes nothing, or its mean, or what it
wrote in another example.

`ablated` does this to any component by its name: embed, pos, a head L0H1, a layer's attention L0
attn, an MLP0, a neuron MLP0N17, or a path L0H1 -> L1H3.K. Biases: b_V goes with a head, b_O with L0
attn and b_out with MLP0, and neither of these with heads or neurons.

Full ablation lets what comes after it go where it will; pattern-preserving ablation holds every
pattern at what it was, so that only what the head itself moved to the logits is lost. In an
attention-only model with frozen norms that is the sum of all paths through it. On a previous-token
head the two give opposite verdicts. (Olsson et al. 2022, "Ablations",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, concat

from analyses.causal import metrics, path_patching
from analyses.labelled import examples, per_head, to_numpy
from analyses.losses import of_stream
from circuits.hooks import Cache, CacheKey, HookPoint
from circuits.interventions import (
    Cell,
    Metric,
    edit,
    frozen_patterns,
    means,
    resampled,
    run_cells,
    sweep,
    zeros,
)
from circuits.model import GPT, Writer, check_predicts, checked_tokens, components

KINDS = ("full", "pattern-preserving")
BY = ("zero", "mean", "resample")
AT_ONCE = 2**21
"How many entries of one layer's patterns are held in memory at a time."
TOGETHER = 32
"Of how many experiments the edits are held in memory at a time."
Rows = Int[Tensor, "batch pos"]
Reference = Int[Tensor, "_ _"]
Names = str | Sequence[str | Sequence[str]]
"Components, each an experiment of its own; or in a sequence, those that are ablated together."


def ablated(
    model: GPT,
    tokens: Rows,
    names: Names,
    *,
    metric: Metric | None = None,
    by: str = "zero",
    kind: str = "full",
    reference: Reference | None = None,
    by_position: bool = True,
    pos: int | None = None,
    seed: int = 0,
    at: int | Int[Tensor, " batch"] | None = None,
    **how: Any,
) -> DataArray:
    """The metric without each component, (component, example), by default the mean loss in nats;
    the coordinate `base` is the model's as it is, so that patching.summary says what changed.

    A component writes zero; or its mean over the examples of `reference`, by default these tokens,
    at each position or over all; or what it wrote in another example of it, drawn by `seed`. With
    `pos` it does so at one position alone. A path is written "L0H1 -> L1H3.K, L1H3.V": its sender
    is ablated for these receivers alone, as in path_patching. `at` and `how` are those of
    interventions.sweep. ValueError for what does not exist, and for a path in a set.
    """
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    _check_one_of(by, BY)
    _check_one_of(kind, KINDS)
    experiments = _experiments(model, names)
    with torch.no_grad():
        clean = model.run_with_cache(tokens, None)[1]
        seen = clean if reference is None else _seen(model, reference, experiments)
    written: dict[CacheKey, Tensor] = {
        writer.key: _written(clean, seen, writer.key, by, by_position, seed)
        for one in experiments for writer in one.writers
    }  # fmt: skip
    run = _Run(model, tokens, clean, written, pos, kind)
    metric = metric or metrics.next_token_loss(model, tokens)
    rows = [sweep(model, tokens, [[]], metric, at=at, **how)]
    for start in range(0, len(experiments), TOGETHER):
        cells = [_cell(run, one) for one in experiments[start : start + TOGETHER]]
        rows.append(sweep(model, tokens, cells, metric, at=at, **how))
    base, *values = torch.cat(rows).cpu()
    return DataArray(
        to_numpy(torch.stack(values)),
        dims=("component", "example"),
        coords={"component": [one.label for one in experiments],
                "example": examples(base, tokens), "base": ("example", to_numpy(base))},
        name="ablated",
        attrs={"long_name": f"metric with {by} for a component", "by": by, "kind": kind},
    )  # fmt: skip


def by_kind(model: GPT, tokens: Rows, names: Names, **how: Any) -> DataArray:
    """`ablated` in full and with patterns preserved, (component, ablation, example): its mean over
    examples, as a table, shows which components work through what others attend to."""
    both = [ablated(model, tokens, names, kind=kind, **how) for kind in KINDS]
    joined = concat(both, "ablation", combine_attrs="drop_conflicts")
    return joined.assign_coords(ablation=list(KINDS)).transpose("component", "ablation", "example")


def sets(names: Names) -> list[list[str]]:
    """What is ablated together in each experiment; ValueError where that is nothing."""
    every = [names] if isinstance(names, str) else names
    found = [[one] if isinstance(one, str) else list(one) for one in every]
    if not found or not all(found):
        raise ValueError(f"there is nothing to ablate in {names!r}")
    return found


def losses(
    model: GPT, rows: Rows, example: Int[Tensor, "token"], index: Int[Tensor, "token"]
) -> tuple[Float[Tensor, "token"], Float[Tensor, "layer head ablation token"]]:
    """Loss in nats of tokens rows[example, index + 1], of the model and of it without each head.

    `ablation` is as in KINDS. Rows go through a few at a time, only the tokens asked for are
    unembedded, and what lies before a head is run once for all. Both are on the CPU.
    """
    check_predicts(model.cfg, "the next-token loss")
    cfg, device = model.cfg, model.W_E.device
    whole = torch.empty(len(example))
    without = torch.empty(cfg.n_layers, cfg.n_heads, len(KINDS), len(example))
    few = max(1, AT_ONCE // (cfg.n_heads * rows.shape[1] ** 2))
    with torch.no_grad():
        for first in range(0, len(rows), few):
            here = (example >= first) & (example < first + few)
            if here.any():
                part = rows[first : first + few].to(device)
                at = ((example[here] - first).to(device), index[here].to(device))
                whole[here], without[..., here] = _losses(model, part, at)
    return whole, without


def of_heads(model: GPT, tokens: Rows) -> DataArray:
    """Rise of the mean loss, in nats, when a head writes nothing: (layer, head, ablation).

    attrs["loss"] is the loss of the model as it is. A head whose full ablation costs much and whose
    pattern-preserving ablation costs nothing works through what later heads attend to.
    """
    tokens = checked_tokens(tokens, model.cfg)
    places = torch.ones_like(tokens[:, 1:], device="cpu").nonzero()
    whole, without = losses(model, tokens, *places.unbind(-1))
    rise = without.double().mean(-1) - whole.double().mean()
    words = "rise of the loss without the head"
    named = per_head(rise, "ablation", "ablation", units="nats", long_name=words)
    return named.assign_coords(ablation=list(KINDS)).assign_attrs(loss=float(whole.mean()))


def _losses(
    model: GPT, rows: Rows, at: tuple[Int[Tensor, "token"], Int[Tensor, "token"]]
) -> tuple[Float[Tensor, "token"], Float[Tensor, "layer head ablation token"]]:
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    targets, kept = rows[:, 1:][at].long(), ("hook_pattern", "hook_resid_pre")
    resid, cache = model.run_with_cache(
        rows[:, :-1], stop_at_layer=n_layers, names_filter=lambda name: name.endswith(kept)
    )

    def loss(resid: Tensor) -> Tensor:
        return of_stream(model, resid[at], targets).cpu()

    def force(pattern: Tensor, hook: HookPoint) -> Tensor:
        return cache[hook.name]

    def without(layer: int, head: int, forced: Iterable[int]) -> Tensor:
        def silence(z: Tensor, hook: HookPoint) -> None:
            z[:, :, head] = 0

        hooks: list[Any] = [(f"blocks.{layer}.attn.hook_z", silence)]
        hooks += [(f"blocks.{later}.attn.hook_pattern", force) for later in forced]
        with model.for_one_run(hooks):
            begun = cache["resid_pre", layer]
            return loss(model(begun, start_at_layer=layer, stop_at_layer=n_layers))

    ablated = torch.empty(n_layers, n_heads, len(KINDS), len(targets))
    for layer in range(n_layers):
        later = range(layer + 1, n_layers)
        for head in range(n_heads):
            ablated[layer, head] = without(layer, head, forced=())  # both, if nothing is later
            if later:
                ablated[layer, head, 1] = without(layer, head, forced=later)
    return loss(resid), ablated


@dataclass(frozen=True)
class _Experiment:
    """What is ablated together; for a path, one sender and the receivers for which it is."""

    label: str
    writers: Sequence[Writer]
    receivers: Sequence[str] = ()


@dataclass(frozen=True)
class _Run:
    """What the edits of every experiment are made from."""

    model: GPT
    tokens: Rows
    clean: Cache
    written: Mapping[CacheKey, Tensor]
    "What is written instead, by hook point."
    pos: int | None
    kind: str


def _check_one_of(got: str, known: Sequence[str]) -> None:
    if got not in known:
        raise ValueError(f"ablation is one of {list(known)}, got {got!r}")


def _experiments(model: GPT, names: Names) -> list[_Experiment]:
    return [_path(model, one[0]) if len(one) == 1 and "->" in one[0] else _set(model, one)
            for one in sets(names)]  # fmt: skip


def _set(model: GPT, names: Sequence[str]) -> _Experiment:
    if any("->" in name for name in names):
        raise ValueError(f"a path is an experiment of its own, got one in {list(names)}")
    writers = [components.writer(model.cfg, name) for name in names]
    return _Experiment(" + ".join(names), sorted(writers, key=_order))


def _order(writer: Writer) -> tuple[int, bool]:
    """When a run comes past it: layer by layer, heads before neurons."""
    return -1 if writer.layer is None else writer.layer, writer.point in ("post", "mlp_out")


def _path(model: GPT, name: str) -> _Experiment:
    sender, *receivers = (word.strip() for word in name.replace("->", ",", 1).split(","))
    writer = components.writer(model.cfg, sender)
    path_patching.check_order(model, [sender], receivers)
    return _Experiment(name, [writer], receivers)


def _seen(model: GPT, reference: Rows, experiments: Sequence[_Experiment]) -> Cache:
    """What all that is to be ablated writes in the reference run."""
    rows = checked_tokens(reference, model.cfg)
    full_name = Cache({}, model.cfg.n_layers).full_name
    names = [full_name(writer.key) for one in experiments for writer in one.writers]
    return model.run_with_cache(rows, None, names_filter=names)[1]


def _written(
    clean: Cache, seen: Cache, key: CacheKey, by: str, by_position: bool, seed: int
) -> Tensor:
    """What is written at a hook point instead, for each example or with a batch of 1."""
    here, there = clean[key].shape, seen[key].shape
    if by == "zero":
        return zeros(clean, key)
    if by == "mean" and not by_position:
        return means(seen, key, by_position=False)[:, :1].expand(1, *here[1:])
    if here[1] != there[1] or (by == "resample" and here[0] != there[0]):
        raise ValueError(f"for {list(here[:2])} tokens by={by!r} wants a reference of that size, "
                         f"got {list(there[:2])}")  # fmt: skip
    return means(seen, key) if by == "mean" else resampled(seen, key, seed=seed)


def _cell(run: _Run, experiment: _Experiment) -> Cell:
    """The edits of one experiment."""
    model, first = run.model, experiment.writers[0]
    layers = range(first.layer or 0, model.cfg.n_layers) if run.kind != "full" else ()
    held, cell = frozen_patterns(model, run.clean, layers), []
    for writer in experiment.writers:
        values = run.written[writer.key]
        if writer.neuron is not None:
            values = _with_neuron(run, writer, values, [*held, *cell] if cell else [])
        cell.append(edit(model, writer.key, values, pos=run.pos, head=writer.head))
    if experiment.receivers:
        others = path_patching.held(model, run.clean)
        sent = path_patching.first_run(model, others, cell)
        (cell,) = path_patching.readings(model, run.tokens, run.clean, [sent], experiment.receivers)
    return [*held, *cell]


def _with_neuron(run: _Run, writer: Writer, values: Tensor, before: Cell) -> Tensor:
    """What all neurons of a layer write after earlier edits, with one of them as in `values`."""
    name, post = run.clean.full_name(writer.key), run.clean[writer.key]
    if before:
        post = run_cells(run.model, run.tokens, [before], [name])[name]
    post = post.clone()
    post[..., writer.neuron] = values[..., writer.neuron]
    return post
