"""What each edge does to the metric: exactly, or by gradients for all edges at once.

An edge's effect is what the metric gains when this edge alone carries the corrupted run, and all
else works with what reaches it. `eap` is its first-order estimate at the clean run,

    sum over positions of (u' - u) . d metric / d v,

with u the sender's writing, u' what replaces it and v what the receiver reads. `eap_ig` takes the
mean of that slope along a way from clean to corrupted: of the embedding, or of the sender itself.

(Syed et al. 2023, "Attribution patching outperforms automated circuit discovery",
https://arxiv.org/abs/2310.10348; Hanna et al. 2024, "Have faith in faithfulness",
https://arxiv.org/abs/2403.17806)
"""

from typing import Any, Literal

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses.causal.discovery import graph
from analyses.causal.discovery.task import Task
from analyses.labelled import to_numpy
from circuits.interventions import Edit, slopes, sweep

Slopes = Float[Tensor, "receiver batch pos d_model"]


def exact(task: Task, **how: Any) -> DataArray:
    """Effect of each edge, (sender, receiver, example), NaN where there is none; in the metric's
    unit. One run an edge, many at a time; `how` is of interventions.sweep."""
    change, there_are = task.there - task.here, task.edges.values
    places = graph.places(task.model)
    cells = []
    for sender, receiver in np.argwhere(there_are):
        name, head = places[receiver]
        moved = change[sender] if head is None else change[sender][:, :, None]
        cells.append([Edit(name, moved, head=head, add=True)])
    values = sweep(task.model, task.clean, cells, task.metric, at=task.at, **how)
    scores = np.full((*there_are.shape, values.shape[1]), np.nan)
    scores[there_are] = to_numpy(values) - task.clean_value.values
    return graph.on_edges(task.model, scores, "effect", "example", long_name="effect of the edge")


def eap(task: Task) -> DataArray:
    """Edge attribution: first-order effect of each edge, (sender, receiver, example); one run and
    its gradient. Blind where the clean run is saturated, as a sharp attention pattern is."""
    return _estimate(task, _slopes(task), "effect of the edge, by its slope")


def eap_ig(
    task: Task, steps: int = 30, *, along: Literal["inputs", "activations"] = "inputs"
) -> DataArray:
    """Edge attribution with integrated gradients, (sender, receiver, example), by the midpoint rule
    in `steps` runs and gradients, along activations as many for each sender.

    Along inputs the effects of the edges out of embed add up to what corrupting the embedding does;
    along activations those out of any sender to what corrupting that sender does.
    """
    if steps < 1:
        raise ValueError(f"steps={steps}: wanted is at least 1")
    if along not in ("inputs", "activations"):
        raise ValueError(f"along={along!r}; choose inputs or activations")
    way = [(step + 0.5) / steps for step in range(steps)]
    words = f"effect of the edge, by {steps} slopes along {along}"
    if along == "inputs":
        return _estimate(task, _mean_slopes(task, "embed", way), words)
    rows = [_estimate(task, _mean_slopes(task, sender, way), words).sel(sender=[sender])
            for sender in graph.senders(task.model)]  # fmt: skip
    values = np.concatenate([row.values for row in rows])
    return graph.on_edges(task.model, values, "effect", "example", long_name=words)


def _slopes(task: Task, sender: str = "embed", moved: float = 0.0) -> Slopes:
    """Of what each receiver reads, where a sender has gone a share of the way from its clean
    writing to what replaces it."""
    number = graph.senders(task.model).index(sender)
    push = moved * (task.there[number] - task.here[number])
    pushing = (_writing(sender), lambda activation, hook: activation + push)
    points = graph.points(task.model)
    found = slopes(task.model, task.clean, list(points), task.metric, task.at, [pushing])
    rows: dict[int, Tensor] = {}
    for name, receivers in points.items():
        by_receiver = found[name].unbind(2) if found[name].ndim == 4 else [found[name]]
        rows |= zip(receivers, by_receiver, strict=True)
    return torch.stack([rows[number] for number in sorted(rows)])


def _mean_slopes(task: Task, sender: str, way: list[float]) -> Slopes:
    return torch.stack([_slopes(task, sender, moved) for moved in way]).mean(0)


def _writing(sender: str) -> str:
    """The hook point that adds a sender's writing to the stream."""
    if sender in ("embed", "pos"):
        return {"embed": "hook_embed", "pos": "hook_pos_embed"}[sender]
    if sender.startswith("MLP"):
        return f"blocks.{sender[3:]}.hook_mlp_out"
    return f"blocks.{sender[1:].split('H')[0]}.hook_attn_out"


def _estimate(task: Task, slope: Slopes, words: str) -> DataArray:
    values = einsum(task.there - task.here, slope, "s b p d, r b p d -> s r b")
    if len(task.clean_value) < len(task.clean):  # one metric for the batch
        values = values.sum(-1, keepdim=True)
    there_are = task.edges.values[..., None]
    scores = np.where(there_are, to_numpy(values), np.nan)
    return graph.on_edges(task.model, scores, "effect", "example", long_name=words)
