"""Circuits: from the scores of edges, or edge by edge.

`acdc` walks from the logits to the embedding and cuts every edge whose loss is small, each time in
the run of what is left. (Conmy et al. 2023, https://arxiv.org/abs/2304.14997, algorithm 1; the
greedy circuit is Hanna et al. 2024's, https://arxiv.org/abs/2403.17806, section 3)
"""

from collections.abc import Sequence

import numpy as np
from xarray import DataArray

from analyses.causal import metrics
from analyses.causal.discovery import graph
from analyses.causal.discovery.task import Task
from circuits.interventions import Metric


def top(scores: DataArray, n: int) -> DataArray:
    """The circuit of the n edges of largest |score|, of the mean where there are examples.
    ValueError if there are not so many, or the score of an edge is NaN."""
    size = _size(scores, n)
    chosen = np.argsort(-size.values, axis=None, kind="stable")[:n]
    kept = np.zeros(size.size, dtype=bool)
    kept[chosen] = True
    return size.copy(data=kept.reshape(size.shape)).rename("circuit")


def greedy(scores: DataArray, n: int) -> DataArray:
    """A circuit of n edges in which every sender's writing is read on the way to the logits: from
    the logits back, each time the edge of largest |score| into what is already there. Fewer if no
    other edge leads there."""
    size = _size(scores, n)
    kept = size.copy(data=np.zeros(size.shape, dtype=bool)).rename("circuit")
    reached = np.array([name == "logits" for name in size.receiver.values])
    for _ in range(n):
        open_ = size.where(reached[None] & ~kept).values
        if np.isnan(open_).all() or np.nanmax(open_) < 0:
            break
        sender, receiver = np.unravel_index(np.nanargmax(open_), open_.shape)
        kept[sender, receiver] = True
        reached |= [_owner(name) == size.sender.values[sender] for name in size.receiver.values]
    return kept


def connected(kept: DataArray) -> DataArray:
    """The edges of a circuit that lie on a way from embed or pos to the logits."""
    found = kept.copy()
    owners = np.array([_owner(name) for name in kept.receiver.values])
    while True:
        before = int(found.sum())
        read = set(owners[found.any("sender").values])
        written = {str(name) for name in found.sender.values[found.any("receiver").values]}
        begins = [name in read | {"embed", "pos"} for name in found.sender.values]
        ends = [owner in written | {"logits"} for owner in owners]
        found = found & np.array(begins)[:, None] & np.array(ends)[None]
        if int(found.sum()) == before:
            return found


def acdc(task: Task, threshold: float, *, distance: Metric | None = None) -> DataArray:
    """The circuit that is left when every edge is cut that costs less than `threshold`.

    Receivers from the logits back, their senders from the last back: an edge goes if cutting it too
    raises the mean `distance` of the run by less than the threshold. The distance is 0 for the
    clean run and by default KL(clean || circuit) in nats. What reads for a sender that nothing
    reads is cut without a run. ValueError for a threshold that is no number.
    """
    if np.isnan(threshold):
        raise ValueError(f"an edge is kept if it costs at least the threshold, got {threshold}")
    apart = metrics.divergence(task.logits(task.edges)) if distance is None else distance
    kept, now = task.edges.copy().rename("circuit"), 0.0
    on, senders = kept.values, kept.sender.values.tolist()
    for receiver, name in reversed(list(enumerate(kept.receiver.values))):
        if name != "logits" and not on[senders.index(_owner(name))].any():
            on[:, receiver] = False
            continue
        for sender in reversed(np.flatnonzero(on[:, receiver])):
            on[sender, receiver] = False
            then = float(apart(task.logits(kept)).mean())
            if then - now < threshold:
                now = then
            else:
                on[sender, receiver] = True
    return kept.assign_attrs(threshold=threshold, distance=now)


def acdc_scores(
    task: Task, thresholds: Sequence[float], *, distance: Metric | None = None
) -> DataArray:
    """The largest of some thresholds at which `acdc` keeps an edge, (sender, receiver): 0 for edges
    that all of them cut, NaN where there is no edge."""
    scores = task.edges.astype(float) * 0.0
    for threshold in sorted(thresholds):
        scores = scores.where(~acdc(task, threshold, distance=distance), threshold)
    named = scores.where(task.edges).rename("threshold")
    return named.assign_attrs(long_name="largest threshold at which ACDC keeps the edge")


def _owner(receiver: str) -> str:
    return receiver.partition(".")[0]


def _size(scores: DataArray, n: int) -> DataArray:
    unknown = scores.isnull() & graph.by_name(scores)
    if unknown.any():
        raise ValueError(f"{int(unknown.sum())} of the scores of edges are NaN: a weight or an "
                         f"activation is not finite")  # fmt: skip
    mean = scores.mean("example") if "example" in scores.dims else scores
    count = int(mean.notnull().sum())
    if not 0 <= n <= count:
        raise ValueError(f"wanted {n} of {count} edges")
    return abs(mean).fillna(-1.0)
