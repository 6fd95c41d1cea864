"""Measures of a circuit, and of scores that should find a known circuit.

(Wang et al. 2022, "Interpretability in the wild", section 4, https://arxiv.org/abs/2211.00593;
Conmy et al. 2023, section 4, https://arxiv.org/abs/2304.14997)
"""

from collections.abc import Mapping, Sequence

import numpy as np
from xarray import DataArray, Dataset

from analyses.causal.discovery.graph import edges, names, owner
from analyses.causal.discovery.runs import cut_value, value
from analyses.causal.discovery.search import top
from analyses.causal.task import Task


def faithfulness(task: Task, kept: DataArray) -> float:
    """The share of the model's metric that the circuit has, from the means over examples: 1 for the
    whole model, 0 for the run with every edge cut. Values below 0 and above 1 are possible.
    ValueError if cutting all edges changes nothing.

    This is the normalised faithfulness of Hanna et al. 2024; Wang et al. 2022 give the difference
    F(M) - F(C). Results depend on such choices: see Miller et al. 2024, "Transformer circuit
    faithfulness metrics are not robust", https://arxiv.org/abs/2407.08734.
    """
    none, full = (float(one.mean()) for one in (cut_value(task), task.clean_value))
    if np.isclose(none, full, rtol=1e-9, atol=1e-12):
        raise ValueError(f"with all edges and with none the metric is {full:.4g}: there is nothing "
                         f"to be faithful to")  # fmt: skip
    return (float(value(task, kept).mean()) - none) / (full - none)


def faithfulness_by_edges(
    task: Task, scores: Mapping[str, DataArray], numbers: Sequence[int]
) -> DataArray:
    """The faithfulness of the circuits of the best-scored edges, (by, edges): a row for each method
    of scoring by its name, a column for each number of edges. Errors are those of `top`."""
    found = [[faithfulness(task, top(one, n)) for n in numbers] for one in scores.values()]
    where = {"by": list(scores), "edges": list(numbers)}
    return DataArray(found, where, tuple(where), "faithfulness", {"long_name": "faithfulness"})


def without(kept: DataArray, nodes: Sequence[str]) -> DataArray:
    """A circuit without the edges out of and into some components; KeyError for an unknown one."""
    for node in nodes:
        if node not in kept.sender:
            raise KeyError(f"no sender {node!r}; there are {kept.sender.values.tolist()}")
    reads = [owner(name) in nodes for name in kept.receiver.values]
    writes = [name in nodes for name in kept.sender.values]
    return kept & ~np.array(writes)[:, None] & ~np.array(reads)[None]


def completeness(task: Task, kept: DataArray, sets: Sequence[Sequence[str]]) -> Dataset:
    """The metric without each set K of components, over (set): of the `circuit` and of the `model`.
    The two are equal for a circuit that misses nothing: |F(C - K) - F(M - K)| is its
    incompleteness. (Wang et al. 2022, section 4.1)"""
    whole = edges(task.model)
    values = {
        name: ("set", [float(value(task, without(one, nodes)).mean()) for nodes in sets])
        for name, one in (("circuit", kept), ("model", whole))
    }
    return Dataset(values, {"set": [" ".join(nodes) for nodes in sets]})


def minimality(task: Task, kept: DataArray) -> DataArray:
    """The change of the circuit's mean metric without each of its edges, (edge). A change of 0
    means that the circuit does not need the edge."""
    base, found, labels = float(value(task, kept).mean()), [], names(kept)
    for label in labels:
        sender, receiver = label.split(" > ")
        less = kept.copy()
        less.loc[{"sender": sender, "receiver": receiver}] = False
        found.append(float(value(task, less).mean()) - base)
    words = {"long_name": "change of the metric without the edge"}
    return DataArray(found, {"edge": labels}, "edge", "minimality", words)


def curve(scores: DataArray, truth: DataArray) -> Dataset:
    """The edges of largest |score| compared with a known circuit, over (threshold), from no edge to
    all edges: false_positive_rate, recall (true positive rate) and precision.

    attrs: `auc`, the area under the ROC curve, 0.5 for random scores, 1 if some threshold gives
    exactly the circuit; `average_precision`. Edges of equal score are taken together. `curve` shows
    every threshold; Conmy et al. draw the pessimistic Pareto front of a few.
    """
    size, known = _pairs(scores, truth)
    thresholds = np.unique(size)[::-1]
    chosen = size[None] >= thresholds[:, None]
    hits, false = (chosen & known).sum(1), (chosen & ~known).sum(1)
    recall = np.append(0.0, hits / known.sum())
    rate = np.append(0.0, false / (~known).sum())
    precision = np.append(1.0, hits / (hits + false))
    attrs = {
        "auc": float(np.trapezoid(recall, rate)),
        "average_precision": float((np.diff(recall) * precision[1:]).sum()),
    }
    columns = {"false_positive_rate": rate, "recall": recall, "precision": precision}
    data = {name: ("threshold", values) for name, values in columns.items()}
    return Dataset(data, {"threshold": np.append(np.inf, thresholds)}, attrs)


def p_of_renaming(
    scores: DataArray, truth: DataArray, *, permutations: int = 1000, seed: int = 0
) -> float:
    """The share of random renamings of the heads within their layers for which the scores find the
    known circuit as well, by `auc`. It is small only if the scores tell these heads from the other
    heads of their layers."""
    rng = np.random.default_rng(seed)
    found = curve(scores, truth).attrs["auc"]
    others = [curve(scores, _shuffled(truth, rng)).attrs["auc"] for _ in range(permutations)]
    return (1 + sum(other >= found - 1e-12 for other in others)) / (1 + permutations)


def significant_edges(
    scores: DataArray, *, alpha: float = 0.05, permutations: int = 2000, seed: int = 0
) -> DataArray:
    """The circuit of the edges whose mean effect differs from 0, (sender, receiver).

    The test flips the signs of the effects of each example at random. An edge is in the circuit if
    its |mean| over its root mean square is larger than the largest of all edges is in all but
    `alpha` of the flips. If the effects of all edges are symmetric about 0, the circuit has one
    edge or more with probability `alpha`. (Westfall and Young 1993; maximum statistic)
    """
    n = scores.sizes["example"]
    if 2.0 ** (1 - n) > alpha:
        raise ValueError(f"{n} examples cannot tell chance from effect at alpha={alpha}: wanted "
                         f"are at least {int(np.ceil(1 - np.log2(alpha)))}")  # fmt: skip
    effects = scores.transpose("example", ...).fillna(0.0)
    flat = effects.values.reshape(n, -1)
    flat = np.where(abs(flat) > 1e-9 * abs(flat).max(initial=0.0), flat, 0.0)  # else: rounding
    scale = np.sqrt((flat**2).mean(0))
    flat = np.divide(flat, scale, out=np.zeros_like(flat), where=scale > 0)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (permutations, n))
    largest = abs(signs @ flat).max(1, initial=0.0) / n
    bar = np.quantile(largest, 1 - alpha, method="higher")
    shape = effects.shape[1:]
    return scores.isel(example=0, drop=True).copy(data=(abs(flat.mean(0)) > bar).reshape(shape))


def _pairs(scores: DataArray, truth: DataArray) -> tuple[np.ndarray, np.ndarray]:
    mean = scores.mean("example") if "example" in scores.dims else scores
    there = mean.notnull().values
    known = truth.transpose(*mean.dims).values
    if known.shape != there.shape or known.dtype != bool or (known & ~there).any():
        raise ValueError(f"the known circuit must be boolean edges of the model of the scores, "
                         f"{mean.shape}; got {known.dtype} {known.shape}")  # fmt: skip
    if not known.any() or known[there].all():
        raise ValueError(f"the known circuit has {known.sum()} of {there.sum()} edges: there is "
                         f"nothing to tell apart")  # fmt: skip
    return abs(mean.values[there]), known[there]


def _shuffled(truth: DataArray, rng: np.random.Generator) -> DataArray:
    """A known circuit in which heads swap their names at random within their layers."""
    layers: dict[str, list[str]] = {}
    for sender in truth.sender.values:
        layers.setdefault(sender.partition("H")[0], []).append(sender)
    new = {old: other for heads in layers.values()
           for old, other in zip(heads, rng.permutation(heads), strict=True)}  # fmt: skip

    def called(name: str) -> str:
        owner, dot, what = name.partition(".")
        return new.get(owner, owner) + dot + what

    moved = truth.assign_coords(
        sender=[called(name) for name in truth.sender.values],
        receiver=[called(name) for name in truth.receiver.values],
    )
    return moved.sel(sender=truth.sender, receiver=truth.receiver)
