"""Finding circuits: from the scores of edges, or edge by edge.

`acdc` walks from the logits to the embedding and cuts every edge that costs little, each time in
the run of the edges that are left. (Conmy et al. 2023, https://arxiv.org/abs/2304.14997, algorithm
1; the greedy circuit is from Hanna et al. 2024, https://arxiv.org/abs/2403.17806, section 3)
"""

import re
from collections.abc import Sequence

import numpy as np
from xarray import DataArray

from analyses.causal import metrics
from analyses.causal.discovery import runs
from analyses.causal.discovery.graph import edges, owner
from analyses.causal.task import Task
from circuits.interventions import Metric


def top(scores: DataArray, n: int) -> DataArray:
    """The circuit of the n edges of largest |score|; of the mean score, where there are examples.
    ValueError if there are fewer edges, or if the score of an edge is NaN."""
    size = _size(scores, n)
    chosen = np.argsort(-size.values, axis=None, kind="stable")[:n]
    kept = np.zeros(size.size, dtype=bool)
    kept[chosen] = True
    return size.copy(data=kept.reshape(size.shape)).rename("circuit")


def greedy(scores: DataArray, n: int) -> DataArray:
    """A circuit of n edges, each on a path to the logits: from the logits back, it adds the edge
    of largest |score| that leads into a component of the circuit. It has fewer edges if no other
    edge leads into the circuit."""
    size = _size(scores, n)
    kept = size.copy(data=np.zeros(size.shape, dtype=bool)).rename("circuit")
    reached = np.array([name == "logits" for name in size.receiver.values])
    for _ in range(n):
        open_ = size.where(reached[None] & ~kept).values
        if np.isnan(open_).all() or np.nanmax(open_) < 0:
            break
        sender, receiver = np.unravel_index(np.nanargmax(open_), open_.shape)
        kept[sender, receiver] = True
        reached |= [owner(name) == size.sender.values[sender] for name in size.receiver.values]
    return kept


def connected_part(kept: DataArray) -> DataArray:
    """The edges of a circuit that lie on a path from embed or pos to the logits."""
    found = kept.copy()
    owners = np.array([owner(name) for name in kept.receiver.values])
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
    """The circuit that is left after cutting every edge that costs less than `threshold`.

    It visits receivers from the logits back, and the senders of each from the last back. It cuts an
    edge if this raises the mean `distance` of the run by less than the threshold. The distance is 0
    for the clean run, and by default KL(clean || circuit) in nats. Receivers of a component that
    nothing reads are cut without a run. ValueError if the threshold is NaN.
    """
    if np.isnan(threshold):
        raise ValueError(f"an edge is kept if it costs at least the threshold, got {threshold}")
    whole = edges(task.model)
    apart = metrics.divergence(runs.logits(task, whole)) if distance is None else distance
    kept, now = whole.rename("circuit"), 0.0
    senders = whole.sender.values.tolist()
    for receiver, name in reversed(list(enumerate(whole.receiver.values))):
        if name != "logits" and not kept.values[senders.index(owner(name))].any():
            kept.values[:, receiver] = False
            continue
        for sender in reversed(np.flatnonzero(kept.values[:, receiver])):
            kept.values[sender, receiver] = False
            then = float(apart(runs.logits(task, kept)).mean())
            if then - now < threshold:
                now = then
            else:
                kept.values[sender, receiver] = True
    return kept.assign_attrs(threshold=threshold, distance=now)


def acdc_scores(
    task: Task, thresholds: Sequence[float], *, distance: Metric | None = None
) -> DataArray:
    """The largest of the thresholds at which `acdc` keeps an edge, (sender, receiver): 0 for edges
    that it cuts at every threshold, NaN where there is no edge."""
    whole = edges(task.model)
    scores = whole.astype(float) * 0.0
    for threshold in sorted(thresholds):
        scores = scores.where(~acdc(task, threshold, distance=distance), threshold)
    named = scores.where(whole).rename("threshold")
    return named.assign_attrs(long_name="largest threshold at which ACDC keeps the edge")


def _size(scores: DataArray, n: int) -> DataArray:
    mean = scores.mean("example", skipna=False) if "example" in scores.dims else scores
    unknown = mean.isnull() & _exists(scores)
    if unknown.any():
        raise ValueError(f"{int(unknown.sum())} of the scores of edges are NaN: a weight or an "
                         f"activation is not finite")  # fmt: skip
    count = int(mean.notnull().sum())
    if not 0 <= n <= count:
        raise ValueError(f"wanted {n} of {count} edges")
    return abs(mean).fillna(-1.0)


def _exists(scores: DataArray) -> DataArray:
    """True where an edge exists, by the names of sender and receiver: a component is read by the
    components of later layers, and by the MLP of its own layer. If no edge to such an MLP has a
    score, the blocks are parallel, and these edges do not exist."""
    depths = [np.array([_depth(str(name)) for name in scores[dim].values])
              for dim in ("sender", "receiver")]  # fmt: skip
    coords = {dim: scores[dim].values for dim in ("sender", "receiver")}
    steps = np.subtract.outer(depths[1], depths[0]).T
    heads_to_mlp = (steps == 1) & (depths[0] % 2 == 1)[:, None]
    parallel = not scores.notnull().values[heads_to_mlp].any()
    return DataArray((steps > 0) & ~(parallel & heads_to_mlp), coords, ("sender", "receiver"))


def _depth(name: str) -> float:
    if name in ("embed", "pos", "logits"):
        return np.inf if name == "logits" else 0.0
    layer = int(re.findall(r"\d+", name)[0])
    return 2.0 * layer + (2 if name.startswith("MLP") else 1)
