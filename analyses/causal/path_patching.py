"""Path patching: the effect of a sender through chosen receivers alone.

Wang et al. 2022 define the edge from a sender to a receiver by two runs on the clean tokens
("Interpretability in the wild", appendix B, https://arxiv.org/abs/2211.00593):

1. The sender writes its value of the corrupted run. Every other head writes its value of the clean
   run, except the heads in `through`, which are computed. MLPs are computed, or also keep their
   clean values (`freeze_mlps`). Norms are computed, or keep the scale of the clean run
   (`freeze_norms`). The inputs of the receivers are noted.
2. Everything is computed, except the inputs of the receivers, which are those of the first run. The
   metric is taken of this run.

Senders are embed, pos, heads and MLPs. Receivers are a head's L1H2.Q, .K and .V, an MLP such as
MLP1, and logits, whose input is the change of the final stream.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor
from xarray import DataArray

from analyses.causal.patching import swept
from analyses.causal.task import Into, Run, Task
from analyses.labelled import to_numpy
from circuits.decomposition import stream
from circuits.hooks import Cache
from circuits.interventions import MEMORY, Cell, Edit, edit, run_cells, start
from circuits.model import GPT, Reader, components


def path_patching(
    task: Task,
    *,
    senders: Sequence[str],
    receivers: Sequence[str],
    through: Sequence[str] = (),
    freeze_mlps: bool = False,
    freeze_norms: bool = False,
    into: Into = "clean",
    memory: int = MEMORY,
    progress: bool = False,
) -> DataArray:
    """The metric when each sender reaches the receivers with its value of the other run, (sender,
    example). The coordinate `base` is the metric of the run that is patched, by default the clean
    one. `memory` and `progress` are as in patching.positions.

    ValueError for names that cannot send or receive, and for a sender that comes before none of the
    receivers.
    """
    model, (base, source) = task.model, task.base_and_source(into)
    check_order(model, senders, receivers)
    held = frozen_edits(model, base.cache, through, freeze_mlps, freeze_norms)
    cells = [first_run(model, held, [_sent(model, source.cache, sender)]) for sender in senders]
    noted = second_runs(model, base, cells, receivers, memory)
    words = f"metric with paths to {', '.join(receivers)} patched"
    values = swept(task, base, noted, words, memory, progress)
    start_value = task.labelled(base.value)
    return DataArray(
        to_numpy(values),
        dims=("sender", "example"),
        coords={
            "sender": list(senders),
            "example": start_value.example,
            "base": ("example", start_value.values),
        },
        name="path_patched",
        attrs={"long_name": words},
    )


def frozen_edits(
    model: GPT,
    clean: Cache,
    through: Sequence[str] = (),
    mlps: bool = False,
    norms: bool = False,
) -> Cell:
    """Edits that keep the outputs of all heads but those in `through`, and if asked of MLPs and
    the scales of norms, as they were in the clean run."""
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


def first_run(model: GPT, frozen: Cell, sent: Cell) -> Cell:
    """The edits of a first run: the sender's, and the frozen ones from its layer on; before it
    nothing differs."""
    first = start(model, sent).layer
    return [*(one for one in frozen if start(model, [one]).layer >= first), *sent]


def second_runs(
    model: GPT,
    base: Run,
    first_runs: Sequence[Cell],
    receivers: Sequence[str],
    memory: int = MEMORY,
) -> list[Cell]:
    """The edits of the second runs: the inputs of the receivers as they are in the first runs."""
    read = [components.reader(model.cfg, receiver) for receiver in receivers]
    points = [one.read_point for one in read]
    seen = run_cells(model, base.tokens, first_runs, points, memory=memory)
    parts = {name: seen[name].chunk(len(first_runs)) for name in seen}
    return [
        [_reading(model, base.cache, {name: parts[name][number] for name in parts}, one)
         for one in read]
        for number in range(len(first_runs))
    ]  # fmt: skip


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


def _sent(model: GPT, source: Cache, sender: str) -> Edit:
    writer = components.writer(model.cfg, sender)
    return edit(model, writer.key, source, head=writer.head)


def _reading(model: GPT, clean: Cache, run: Mapping[str, Tensor], reader: Reader) -> Edit:
    point = reader.read_point
    if reader.name == "logits":
        return Edit(point, run[point] - stream(model, clean), add=True)
    return Edit(point, run[point], head=reader.head)
