"""Circuits found edge by edge: how good estimates are, and how few edges do the work."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from xarray import DataArray

from analyses import plots
from analyses.causal import attribution, discovery, induction_task, patching
from analyses.causal.task import Into, Task
from analyses.papers.figures.record import Finding, Picture, figure, toy_figure
from circuits import ground_truth
from circuits.model import GPT

SHARP = 40.0
"Of the attention of the built circuit: sharp, but slopes do not vanish."
THRESHOLDS = (0.001, 0.01, 0.1, 1.0)
METHODS = {
    "exact": discovery.exact,
    "EAP": discovery.eap,
    "EAP-IG, inputs": lambda task: discovery.eap_ig(task, 12),
    "EAP-IG, activations": lambda task: discovery.eap_ig(task, 6, along="activations"),
}


@figure(
    "circuits/estimates",
    "Attribution patching against patching",
    "Nanda 2023; Syed et al. 2023",
    "estimates agree with patching for heads, less for the stream",
    layers=1,
    url="https://arxiv.org/abs/2310.10348",
)
def estimates(model: GPT) -> Finding:
    """Attribution patching against patching: heads' outputs and the stream, clean into corrupted,
    and single edges. Good for heads, worse where a patch changes much, as in the stream."""
    task = induction_task(model)
    exact = discovery.exact(task).mean("example")
    pairs = {
        "heads": _patched(task, "corrupted", patching.heads, attribution.heads),
        "stream": _patched(task, "corrupted", patching.positions, attribution.positions),
        "edges, EAP": (exact, discovery.eap(task).mean("example")),
        "edges, EAP-IG": (exact, discovery.eap_ig(task).mean("example")),
    }
    r = {name: _correlation(*pair) for name, pair in pairs.items()}
    into_clean = _patched(task, "clean", patching.heads, attribution.heads)
    does = float(task.clean_value.mean())

    def picture() -> Picture:
        figure, axes = plots.grid(1, 4, (2.9, 2.7))
        for ax, (name, (truth, estimate)) in zip(axes[0], pairs.items(), strict=True):
            plots.agreement(truth, estimate, ax, name)
            ax.set(xlabel="change of the metric", ylabel="")
        axes[0, 0].set_ylabel("estimate")
        return figure

    return Finding(
        does > 1.0 and r["heads"] > 0.8 and r["stream"] < r["heads"],
        f"r = {r['heads']:.2f} for heads, {r['stream']:.2f} for the stream, {r['edges, EAP']:.2f} "
        f"for edges by one slope and {r['edges, EAP-IG']:.2f} by the mean of 30; for heads of the "
        f"corrupted run in the clean one, whose patterns are sharp, "
        f"{_correlation(*into_clean):.2f}; the model's logit difference is {does:.2f}",
        "Twelve random tokens said twice, corrupted in every token; the metric is the logit of the "
        "right next token less that of another. Heads and the stream of the clean run are put into "
        "the corrupted one, edges of the corrupted run into the clean one; a point is a mean over "
        "12 examples. Holds if r > 0.8 for heads and less for the stream, in a model that does "
        "the task.",
        picture,
    )


@figure(
    "circuits/few-edges",
    "How few edges do the task",
    "Conmy et al. 2023, https://arxiv.org/abs/2304.14997; Hanna et al. 2024",
    "few edges do the task, and EAP-IG finds more faithful circuits than EAP",
    layers=1,
    url="https://arxiv.org/abs/2403.17806",
)
def few_edges(model: GPT) -> Finding:
    """How much of the induction task circuits of few edges have, by how their edges are scored; and
    the circuit of the best-scored third."""
    task = induction_task(model)
    total = int(discovery.edges(model).sum())
    edges = np.unique(np.linspace(0, total, 11).round().astype(int)).tolist()
    scores = {name: method(task) for name, method in METHODS.items()}
    found = discovery.faithfulness_by_edges(task, scores, edges)
    clean = float(task.clean_value.mean())
    half = found.sel(edges=edges[len(edges) // 2])
    by = {str(line.score.item()): float(line) for line in half}
    ahead = min(by["EAP-IG, inputs"], by["EAP-IG, activations"]) > by["EAP"]

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.8, 3.6))
        plots.sizes(found, axes[0, 0])
        third = discovery.top(scores["exact"], total // 3)
        plots.circuit(third, axes[0, 1], f"the {total // 3} edges of largest effect")
        return figure

    return Finding(
        clean > 1.0 and by["exact"] > 0.8 and ahead,
        f"the {int(half.edges)} best of {total} edges have {by['exact']:.2f} of the task by their "
        f"exact effects, {by['EAP']:.2f} by EAP, {by['EAP-IG, inputs']:.2f} and "
        f"{by['EAP-IG, activations']:.2f} by EAP-IG along inputs and activations; the model's "
        f"logit difference is {clean:.2f}",
        "All edges outside of a circuit carry the corrupted run. Faithfulness is the circuit's "
        "logit difference, 0 as if every edge were cut and 1 as in the whole model. Holds if half "
        "the edges have 0.8 of the task by their exact effects, and EAP-IG is ahead of EAP there.",
        picture,
    )


@toy_figure(
    "circuits/known",
    "A circuit that is known is found",
    "Conmy et al. 2023, section 4",
    "known circuits are recovered by a threshold on each method's scores",
    url="https://arxiv.org/abs/2304.14997",
)
def known_circuit(seed: int = 0) -> Finding:
    """Each method on an induction circuit that was built among random heads: does some threshold
    give exactly its edges? And on a random model of the same shape, where there are none."""
    model = ground_truth.InductionAmongDistractors(12, 16, sharpness=SHARP, seed=seed).model
    answers = ground_truth.InductionAmongDistractors(12, 16, sharpness=SHARP)
    truth = discovery.circuit(model, answers.edges)
    ways = {**METHODS, "ACDC": lambda task: discovery.acdc_scores(task, THRESHOLDS)}
    scores = {name: [way(induction_task(one, 7)) for way in ways.values()]
              for name, one in (("built", model), ("random", _random(model, seed)))}  # fmt: skip
    curves = {name: [discovery.curve(one, truth) for one in those]
              for name, those in scores.items()}  # fmt: skip
    area = {name: [curve.attrs["auc"] for curve in those] for name, those in curves.items()}
    alpha = 0.05 / len(METHODS)
    kept = {name: [discovery.significant_edges(one, alpha=alpha) for one in those[:-1]]
            for name, those in scores.items()}  # fmt: skip
    number = {name: [int(one.sum()) for one in those] for name, those in kept.items()}
    right = all(one.equals(truth) for one in kept["built"]) and not any(number["random"])

    def picture() -> Picture:
        figure, axes = plots.grid(1, 3, (3.9, 3.6))
        for ax, (name, those) in zip(axes[0], curves.items(), strict=False):
            plots.roc(dict(zip(ways, those, strict=True)), ax, f"{name} weights")
        found = discovery.top(scores["built"][0], len(answers.edges))
        plots.circuit(found, axes[0, 2], "found")
        return figure

    return Finding(
        min(area["built"]) > 1 - 1e-9 and right,
        f"areas under the curve are {_listed(area['built'])} ({', '.join(ways)}) and on random "
        f"weights {_listed(area['random'])}; edges whose effect is not chance over the examples "
        f"are {number['built']}, and on random weights {number['random']}",
        "GT-F: a K-composition induction circuit of five edges beside four random heads in each "
        "layer, as large as its own. ROC over thresholds on |score|. On random weights areas need "
        "not be 0.5, for edges out of the embedding and into the logits matter in any model; so "
        "edges are also tested by exchanging clean and corrupted at random in each example. Holds "
        "if every area is 1 for the built circuit, the test gives its edges and no others, and on "
        "random weights none.",
        picture,
    )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _random(like: GPT, seed: int) -> GPT:
    """A model of the same shape whose every weight is random, scaled so that parts are alike."""
    model = GPT(replace(like.cfg, seed=seed, init_range=like.cfg.d_model**-0.5))
    return model.to(like.W_E.dtype).eval()


def _patched(task: Task, into: Into, *ways: Callable[..., DataArray]) -> tuple[DataArray, ...]:
    """The mean change of the metric with each place patched, by each of the ways."""
    results = [way(task, into=into) for way in ways]
    return tuple((one - one.base).mean("example") for one in results)


def _correlation(truth: DataArray, estimate: DataArray) -> float:
    there = truth.notnull().values
    return float(np.corrcoef(truth.values[there], estimate.values[there])[0, 1])
