"""Path patching: what a sender does through chosen receivers alone.

The edge from a sender to a receiver, as Wang et al. 2022 have it ("Interpretability in the wild",
appendix B, https://arxiv.org/abs/2211.00593). Two runs on the clean tokens:

1. The sender writes what it wrote in the corrupted run. Every other head writes what it wrote in
   the clean run, but for those in `through`, which work with what reaches them. MLPs work with what
   reaches them, or are held too (`freeze_mlps`). Norms rescale, or keep the scale of the clean run
   (`freeze_norms`). What the receivers read here is noted.
2. Nothing is held; only the receivers read what was noted. The metric is taken of this run.

Senders are embed, pos, heads and MLPs by name; receivers a head's L1H2.Q, .K and .V, an MLP1, and
logits, whose reading is the change of the final stream.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from xarray import DataArray

from analyses.causal.patching import progress_bar
from analyses.labelled import to_numpy
from circuits.decomposition import same_run, stream
from circuits.hooks import Cache
from circuits.interventions import MEMORY, Cell, Edit, Metric, edit, run_cells, start, sweep
from circuits.model import GPT, Head, components

Tokens = Int[Tensor, "batch pos"]


def path_patching(
    model: GPT,
    tokens: Tokens,
    clean: Cache,
    corrupted: Cache,
    metric: Metric,
    *,
    senders: Sequence[str],
    receivers: Sequence[str],
    through: Sequence[str] = (),
    freeze_mlps: bool = False,
    freeze_norms: bool = False,
    at: int | Int[Tensor, " batch"] | None = None,
    **how: Any,
) -> DataArray:
    """The metric when each sender reaches the receivers from the corrupted run, (sender, example);
    the coordinate `base` is the clean run's. `clean` is the run on `tokens`, `corrupted` one on
    others of their shape, both with everything cached.

    ValueError for names that can neither send nor receive, and for a receiver that no sender comes
    before.
    """
    same_run(model, clean, tokens)
    if same_run(model, corrupted)["embed"].shape != clean["embed"].shape:
        raise ValueError("the corrupted run must have as many examples and tokens as the clean one")
    check_order(model, senders, receivers)
    others = held(model, clean, through, freeze_mlps, freeze_norms)
    cells = [first_run(model, others, [_sent(model, corrupted, sender)]) for sender in senders]
    noted = readings(model, tokens, clean, cells, receivers, how.get("memory", MEMORY))
    words = f"metric with paths to {', '.join(receivers)} patched"
    with progress_bar(len(cells) + 1, words, how) as how:
        *values, base = sweep(model, tokens, [*noted, []], metric, at=at, **how)
    return DataArray(
        to_numpy(torch.stack(values)),
        dims=("sender", "example"),
        coords={"sender": list(senders), "base": ("example", to_numpy(base))},
        name="path_patched",
        attrs={"long_name": words},
    )


def _sent(model: GPT, corrupted: Cache, sender: str) -> Edit:
    if sender in ("embed", "pos"):
        return edit(model, {"embed": "embed", "pos": "pos_embed"}[sender], corrupted)
    if sender.startswith("MLP"):
        return edit(model, ("mlp_out", int(sender[3:])), corrupted)
    layer, head = components.head(model.cfg, sender)
    return edit(model, ("z", layer), corrupted, head=head)


def held(
    model: GPT,
    clean: Cache,
    through: Sequence[str] = (),
    mlps: bool = False,
    norms: bool = False,
) -> Cell:
    """Edits that hold what heads write, but for those in `through`, and if asked MLPs and the
    scales of norms, as in the clean run."""
    free = {components.head(model.cfg, name) for name in through}
    found = []
    for layer in range(model.cfg.n_layers):
        heads = [head for head in components.every_head(model.cfg) if head.layer == layer]
        if free.isdisjoint(heads):
            found.append(edit(model, ("z", layer), clean))
        else:
            found += [edit(model, ("z", layer), clean, head=head.head)
                      for head in heads if head not in free]  # fmt: skip
        if mlps and not model.cfg.attn_only:
            found.append(edit(model, ("mlp_out", layer), clean))
    scales = [name for name in clean if norms and name.endswith("hook_scale")]
    return found + [edit(model, name, clean) for name in scales]


def first_run(model: GPT, others: Cell, sent: Cell) -> Cell:
    """What the sender writes, over what is held; before its layer nothing differs anyway."""
    first = start(model, sent).layer
    return [*(one for one in others if start(model, [one]).layer >= first), *sent]


def readings(
    model: GPT,
    tokens: Tokens,
    clean: Cache,
    cells: Sequence[Cell],
    receivers: Sequence[str],
    memory: int = MEMORY,
) -> list[Cell]:
    """What receivers read in first runs with these edits, as the edits of the second runs."""
    points = {receiver: _point(model, receiver) for receiver in receivers}
    seen = run_cells(model, tokens, cells, [name for name, _ in points.values()], memory=memory)
    parts = {name: seen[name].chunk(len(cells)) for name in seen}
    return [
        [_reading(model, clean, {name: parts[name][number] for name in parts}, points, receiver)
         for receiver in receivers]
        for number in range(len(cells))
    ]  # fmt: skip


def _point(model: GPT, receiver: str) -> tuple[str, Head | None]:
    """Where a receiver reads: a hook point, and the head if it is one's."""
    if receiver == "logits":
        return f"blocks.{model.cfg.n_layers - 1}.hook_resid_post", None
    if receiver.startswith("MLP"):
        return f"blocks.{int(receiver[3:])}.hook_mlp_in", None
    name, _, what = receiver.partition(".")
    head = components.head(model.cfg, name)
    return f"blocks.{head.layer}.attn.hook_{what.lower()}", head


def _reading(
    model: GPT,
    clean: Cache,
    run: Mapping[str, Tensor],
    points: dict[str, tuple[str, Head | None]],
    receiver: str,
) -> Edit:
    name, head = points[receiver]
    if receiver == "logits":
        return Edit(name, run[name] - stream(model, clean), add=True)
    return Edit(name, run[name], head=None if head is None else head.head)


def check_order(model: GPT, senders: Sequence[str], receivers: Sequence[str]) -> None:
    """ValueError for names that cannot send or receive, and for a sender that comes before none of
    the receivers."""
    if model.cfg.n_layers == 0:
        raise ValueError("a model without layers has one path alone, from embed to logits")
    if not (senders and receivers):
        raise ValueError("path patching wants at least one sender and one receiver")
    depths = {name: components.depth(model.cfg, name) for name in (*senders, *receivers)}
    for sender in senders:
        if sender == "logits" or "." in sender:
            raise ValueError(f"{sender} reads; senders are embed, pos, heads and MLPs")
        if all(depths[sender] >= depths[receiver] for receiver in receivers):
            raise ValueError(f"{sender} comes before none of {list(receivers)}")
    for receiver in receivers:
        if receiver in ("embed", "pos") or (receiver[0] == "L" and "." not in receiver):
            raise ValueError(f"{receiver} writes; receivers are L1H2.Q, .K, .V, MLP1 and logits")
