"""The effect of each edge on the metric: exact, or estimated by gradients for all edges at once.

The effect of an edge is the change of the metric when this edge alone carries its replacement, and
everything behind it reacts. `eap` is the first-order estimate at the clean run,

    sum over positions of (u' - u) . d metric / d v,

where u is the value that the sender writes, u' its replacement, and v the input of the receiver.
`eap_ig` takes the mean of this slope between clean and corrupted: of the embedding, or of the
sender itself.

(Syed et al. 2023, "Attribution patching outperforms automated circuit discovery",
https://arxiv.org/abs/2310.10348; Hanna et al. 2024, "Have faith in faithfulness",
https://arxiv.org/abs/2403.17806)
"""

from typing import Literal

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses.causal.discovery.graph import graph_of
from analyses.causal.discovery.runs import clean_writes, replacing_writes
from analyses.causal.patching import swept
from analyses.causal.task import Task
from analyses.labelled import to_numpy
from circuits.interventions import MEMORY, Edit, slopes
from circuits.model import components

Slopes = Float[Tensor, "receiver batch pos d_model"]


def exact(task: Task, *, memory: int = MEMORY, progress: bool = False) -> DataArray:
    """The effect of each edge in the metric's unit, (sender, receiver, example); NaN where there is
    no edge. It takes one run an edge, many at a time. `memory` and `progress` are as in
    patching.positions."""
    graph = graph_of(task.model.cfg)
    change, cells = _change(task), []
    for number, place in np.argwhere(graph.exists):
        receiver = graph.receivers[place]
        moved = change[number] if receiver.head is None else change[number][:, :, None]
        cells.append([Edit(receiver.point, moved, head=receiver.head, add=True)])
    values = swept(task, task.clean_run, cells, "edges", memory, progress)
    scores = np.full((*graph.exists.shape, values.shape[1]), np.nan)
    scores[graph.exists] = to_numpy(values) - task.clean_value.values
    return graph.label(scores, "effect", "example", long_name="effect of the edge")


def eap(task: Task) -> DataArray:
    """Edge attribution patching: the first-order effect of each edge, (sender, receiver, example),
    from one run and its gradient. It misses effects where the clean run is saturated, as a sharp
    attention pattern is."""
    return _estimate(task, _slopes(task), "effect of the edge, by its slope")


def eap_ig(
    task: Task, steps: int = 30, *, along: Literal["inputs", "activations"] = "inputs"
) -> DataArray:
    """Edge attribution patching with integrated gradients, (sender, receiver, example), by the
    midpoint rule with `steps` points. Along inputs it takes `steps` runs and gradients; along
    activations it takes as many for each sender.

    Along inputs, the effects of the edges out of embed sum to the effect of corrupting the
    embedding. Along activations, the effects of the edges out of any sender sum to the effect of
    corrupting this sender.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: wanted is at least 1")
    if along not in ("inputs", "activations"):
        raise ValueError(f"along={along!r}; choose inputs or activations")
    shares = [(step + 0.5) / steps for step in range(steps)]
    words = f"effect of the edge, by {steps} slopes along {along}"
    if along == "inputs":
        return _estimate(task, _mean_slopes(task, "embed", shares), words)
    graph = graph_of(task.model.cfg)
    rows = [_estimate(task, _mean_slopes(task, sender, shares), words).sel(sender=[sender])
            for sender in graph.senders]  # fmt: skip
    values = np.concatenate([row.values for row in rows])
    return graph.label(values, "effect", "example", long_name=words)


def _change(task: Task) -> Float[Tensor, "sender batch pos d_model"]:
    return replacing_writes(task) - clean_writes(task)


def _slopes(task: Task, sender: str = "embed", share: float = 0.0) -> Slopes:
    """The slope of the metric at the input of each receiver, in a run where one sender writes a mix
    of its clean value and its replacement, with this share of the latter."""
    graph = graph_of(task.model.cfg)
    push = share * _change(task)[graph.senders.index(sender)]
    point = components.writer(task.model.cfg, sender).adds_at
    pushing = (point, lambda activation, hook: activation + push)
    points = graph.points
    found = slopes(task.model, task.clean, list(points), task.metric, task.at, [pushing])
    rows: dict[int, Tensor] = {}
    for name, receivers in points.items():
        by_receiver = found[name].unbind(2) if found[name].ndim == 4 else [found[name]]
        rows |= zip(receivers, by_receiver, strict=True)
    return torch.stack([rows[number] for number in sorted(rows)])


def _mean_slopes(task: Task, sender: str, shares: list[float]) -> Slopes:
    return torch.stack([_slopes(task, sender, share) for share in shares]).mean(0)


def _estimate(task: Task, slope: Slopes, words: str) -> DataArray:
    values = einsum(_change(task), slope, "s b p d, r b p d -> s r b")
    if len(task.clean_value) < len(task.clean):  # one metric for the batch
        values = values.sum(-1, keepdim=True)
    graph = graph_of(task.model.cfg)
    scores = np.where(graph.exists[..., None], to_numpy(values), np.nan)
    return graph.label(scores, "effect", "example", long_name=words)
