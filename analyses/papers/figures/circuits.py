"""Circuits found edge by edge: how good estimates of effects are, and how few edges do a task."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from matplotlib.axes import Axes
from xarray import DataArray, concat

from analyses import plots
from analyses.causal import attribution, discovery, induction_task, patching
from analyses.causal.task import Into, Task
from analyses.labelled import interval, rank_correlation, to_numpy
from analyses.papers.figures.record import Finding, Picture, figure, toy_figure
from circuits import ground_truth
from circuits.model import GPT

SHARP = 40.0
"The sharpness of attention in the built circuit: attention is sharp, but slopes do not vanish."
SEEDS, MANY = 6, 12
"The number of sets of prompts for estimates, and the number for circuits."
DIRECTIONS: tuple[Into, ...] = ("corrupted", "clean")
ESTIMATED = {
    "heads": (patching.heads, attribution.heads),
    "stream": (patching.positions, attribution.positions),
}
QUICK = {
    "exact": discovery.exact,
    "EAP": discovery.eap,
    "EAP-IG": lambda task: discovery.eap_ig(task, 5),
}
THRESHOLDS = (0.001, 0.01, 0.1, 1.0)
METHODS = {
    "exact": discovery.exact,
    "EAP": discovery.eap,
    "EAP-IG, inputs": lambda task: discovery.eap_ig(task, 12),
    "EAP-IG, activations": lambda task: discovery.eap_ig(task, 6, along="activations"),
}
WAYS = {**METHODS, "ACDC": lambda task: discovery.acdc_scores(task, THRESHOLDS)}
WEAKER = (80.0, 40.0, 20.0, 10.0, 5.0, 2.5)


@figure(
    "circuits/estimates",
    "Attribution patching against patching",
    "Nanda 2023; Syed et al. 2023",
    "estimates agree with patching for heads, less for the stream",
    layers=1,
    url="https://arxiv.org/abs/2310.10348",
)
def estimates(model: GPT) -> Finding:
    """Attribution patching against patching: the outputs of heads and the stream, in both
    directions, and single edges. The claim: estimates are good for heads, and worse where a patch
    changes much, as in the stream."""
    tasks = [induction_task(model, seed=2 * seed) for seed in range(SEEDS)]
    does = float(np.mean([task.clean_value.mean() for task in tasks]))
    seen = {(name, into): [_patched(task, into, *ways) for task in tasks]
            for into in DIRECTIONS for name, ways in ESTIMATED.items()}  # fmt: skip
    r = {key: float(np.mean([_rank(*pair) for pair in pairs])) for key, pairs in seen.items()}
    agree = all(r["heads", into] > 0.8 and r["stream", into] < r["heads", into]
                for into in DIRECTIONS)  # fmt: skip
    exact = discovery.exact(tasks[0]).mean("example")
    by_edge = (exact, discovery.eap(tasks[0]).mean("example"))

    def picture() -> Picture:
        shown = {f"{name} into {into}": pairs[0] for (name, into), pairs in seen.items()}
        figure, axes = plots.grid(1, len(shown) + 1, (2.9, 2.7))
        both = {**shown, "edges, EAP": by_edge}
        for ax, (name, (truth, estimate)) in zip(axes[0], both.items(), strict=True):
            plots.agreement(truth, estimate, ax, name)
            ax.set(xlabel="change of the metric", ylabel="")
            ax.set_title(f"{name}\n(rank correlation {_rank(truth, estimate):.2f})", fontsize=9)
        axes[0, 0].set_ylabel("estimate")
        return figure

    told = [f"{r['heads', into]:.2f} for heads and {r['stream', into]:.2f} for the stream into the "
            f"{into} run" for into in DIRECTIONS]  # fmt: skip
    return Finding(
        agree if does > 1.0 else None,
        f"rank correlation, mean of {SEEDS} sets of prompts: {', '.join(told)}; "
        f"{_rank(*by_edge):.2f} for edges, on the first set; the model's logit difference is "
        f"{does:.2f}",
        "Each point is a head, a place in the stream or an edge: the change of the metric when it "
        "is patched, against the estimate of attribution patching, in the mean over the 12 "
        f"examples of the first of {SEEDS} sets of prompts. The task is twelve random tokens said "
        "twice; in the corrupted run every token but BOS is another one. The metric is the logit "
        "of the right next token less the logit of the token that is right in the corrupted run. "
        "Heads and the stream of one run are put into the other run, edges of the corrupted run "
        "into the clean run. The test: in both directions the rank correlation, in the mean over "
        "sets, is above 0.8 for heads, and lower for the stream than for heads. A model whose "
        "logit difference is 1 or less does not do the task, and cannot be judged.",
        picture,
    )


@figure(
    "circuits/few-edges",
    "How many edges do the task",
    "Conmy et al. 2023, https://arxiv.org/abs/2304.14997; Hanna et al. 2024",
    "few edges do the task, and EAP-IG finds more faithful circuits than EAP",
    layers=1,
    url="https://arxiv.org/abs/2403.17806",
)
def few_edges(model: GPT) -> Finding:
    """The share of the induction task that circuits keep, by the number of their edges and by the
    method that scores the edges, over many prompts; and the circuit of the best-scored third."""
    total = int(discovery.edges(model).sum())
    edges = np.unique(np.linspace(0, total, 7).round().astype(int)).tolist()
    tasks = [induction_task(model, seed=2 * seed) for seed in range(MANY)]
    scores = [{name: score(task) for name, score in QUICK.items()} for task in tasks]
    by_seed = [discovery.faithfulness_by_edges(task, one, edges)
               for task, one in zip(tasks, scores, strict=True)]  # fmt: skip
    found = concat(by_seed, "seed")
    half, does = edges[len(edges) // 2], float(np.mean([t.clean_value.mean() for t in tasks]))
    at_half = found.sel(edges=half).mean("seed")
    area = found.integrate("edges") / total
    ahead = torch.from_numpy((area.sel(score="EAP-IG") - area.sel(score="EAP")).values)
    low, high = interval(ahead, torch.ones_like(ahead)).tolist()

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.8, 3.6))
        _band(found, axes[0, 0])
        third = discovery.top(scores[0]["exact"], total // 3)
        plots.circuit(third, axes[0, 1], f"the {total // 3} edges of largest effect")
        return figure

    return Finding(
        bool(at_half.sel(score="exact") > 0.8 and low > 0) if does > 1.0 else None,
        f"the best half of the edges ({half} of {total}) keeps {_of(at_half, 'exact')} of the task "
        f"by exact effects, {_of(at_half, 'EAP')} by EAP, {_of(at_half, 'EAP-IG')} by EAP-IG; the "
        f"area under the curve of EAP-IG less the area of EAP is {float(ahead.mean()):+.2f} "
        f"({low:+.2f} to {high:+.2f}); the model's logit difference is {does:.2f}",
        "Left: the faithfulness of the circuit of the best-scored edges, by the number of edges. "
        f"Lines are means over {MANY} sets of 12 prompts, bands are their 95% intervals. All edges "
        "outside of a circuit carry the corrupted run. Faithfulness is the circuit's logit "
        "difference, scaled to 0 if every edge is cut and 1 in the whole model. Right: the third "
        "of the edges with the largest exact effects on the first set. The test: half of the "
        "edges, which is not few, keep more than 0.8 of the task by their exact effects; and the "
        "area under the curve of EAP-IG (5 slopes along inputs) less the area of EAP is above 0, "
        "with its interval. A model whose logit difference is 1 or less does not do the task, and "
        "cannot be judged.",
        picture,
    )


def _of(values: DataArray, by: str) -> str:
    return f"{float(values.sel(score=by)):.2f}"


def _band(found: DataArray, ax: Axes) -> None:
    """The mean faithfulness over seeds, with its interval."""
    plots.sizes(found.mean("seed").assign_attrs(long_name="faithfulness"), ax)
    each = torch.from_numpy(found.transpose("seed", ...).values)
    ends = to_numpy(interval(each, torch.ones_like(each)))
    for line, low, high in zip(ax.get_lines(), *ends, strict=False):
        ax.fill_between(found.edges, low, high, color=line.get_color(), alpha=0.15, lw=0)


@toy_figure(
    "circuits/known",
    "A circuit that is known is found",
    "Conmy et al. 2023, section 4",
    "known circuits are recovered by a threshold on each method's scores",
    url="https://arxiv.org/abs/2304.14997",
)
def known_circuit(seed: int = 0) -> Finding:
    """Each method on an induction circuit that was built among random heads: does some threshold
    give exactly its edges? The control is a random model of the same shape without a circuit.
    Weaker attention shows which methods miss the circuit first."""
    answers = ground_truth.InductionAmongDistractors(12, 16, sharpness=SHARP, seed=seed)
    model = answers.model
    truth = discovery.circuit(model, answers.edges)
    scores = {name: {by: way(induction_task(one, 7)) for by, way in WAYS.items()}
              for name, one in (("built", model), ("random", _random(model, seed)))}  # fmt: skip
    curves = {name: {by: discovery.curve(one, truth) for by, one in those.items()}
              for name, those in scores.items()}  # fmt: skip
    area = {name: [curve.attrs["auc"] for curve in those.values()]
            for name, those in curves.items()}  # fmt: skip
    alpha = 0.05 / len(METHODS)
    kept = {name: [discovery.significant_edges(those[by], alpha=alpha) for by in METHODS]
            for name, those in scores.items()}  # fmt: skip
    number = {name: [int(one.sum()) for one in those] for name, those in kept.items()}
    right = all(one.equals(truth) for one in kept["built"]) and not any(number["random"])
    off, least = _by_sharpness(model, truth)
    apart = off.sharpness.values[(abs(off[0] - off[1]) > 0.1).values]

    def picture() -> Picture:
        figure, axes = plots.grid(1, 4, (3.9, 3.6))
        for ax, (name, those) in zip(axes[0], curves.items(), strict=False):
            plots.roc(those, ax, f"{name} weights")
        plots.circuit(discovery.top(scores["built"]["exact"], len(answers.edges)), axes[0, 2],
                      "found")  # fmt: skip
        plots.sizes(off.rename(sharpness="edges"), axes[0, 3], "other sharpness")
        axes[0, 3].set(xlabel="sharpness of attention", ylabel="error, as a share of the effects")
        return figure

    first = " and ".join(f"{one:g}" for one in apart) or "no sharpness"
    return Finding(
        min(area["built"]) > 1 - 1e-9 and right,
        f"areas under the curve are {_listed(area['built'])} ({', '.join(WAYS)}) and on random "
        f"weights {_listed(area['random'])}; the numbers of edges whose effect is not chance are "
        f"{number['built']} by {', '.join(METHODS)}, and on random weights {number['random']}; at "
        f"each sharpness of the last panel areas are {least:.2f} or more, but the errors of EAP "
        f"and EAP-IG differ by more than a tenth of the size of effects at sharpness {first}",
        f"The model is an induction circuit of {len(answers.edges)} edges by K-composition, beside "
        "four random heads in each layer that are as large as the circuit's own head. First and "
        "second panel: ROC curves over thresholds on |score|, for the built model and for random "
        "weights. Third: the edges with the largest exact effects. Last, and no part of the test: "
        "the error of each estimate of the effects of the circuit's edges, where attention is "
        "weaker or sharper. On random weights areas need not be 0.5, for edges out of the "
        "embedding and into the logits matter in any model. So edges are also tested by flips of "
        "the sign of the effects of each example. The test: every area is 1 for the built circuit; "
        "by each method but ACDC the flips leave its edges and no others, and no edge on random "
        "weights.",
        picture,
    )


def _scaled(model: GPT, sharpness: float) -> GPT:
    """The built circuit with its queries scaled, so that attention is more or less sharp."""
    weak = copy.deepcopy(model)
    with torch.no_grad():
        for block in weak.blocks:
            block.attn.W_Q *= sharpness / SHARP
    return weak


def _by_sharpness(model: GPT, truth: DataArray) -> tuple[DataArray, float]:
    """The error of each estimate of QUICK on the circuit's edges, as a share of the size of their
    exact effects, (score, sharpness); and the least area under the curve."""
    off, least = [], 1.0
    for sharpness in WEAKER:
        task = induction_task(_scaled(model, sharpness), 7)
        scores = {by: way(task) for by, way in QUICK.items()}
        areas = [discovery.curve(one, truth).attrs["auc"] for one in scores.values()]
        least = min(least, *areas)
        exact, *others = (one.mean("example").where(truth) for one in scores.values())
        size = float(abs(exact).sum())
        off.append([float(abs(one - exact).sum()) / size for one in others])
    where = {"score": list(QUICK)[1:], "sharpness": list(WEAKER)}
    return DataArray(np.array(off).T, where, tuple(where), "off", {"long_name": "off"}), least


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def _random(like: GPT, seed: int) -> GPT:
    """A model of the same shape whose weights are all random, of size 1 / sqrt(d_model)."""
    model = GPT(replace(like.cfg, seed=seed, init_range=like.cfg.d_model**-0.5))
    return model.to(like.W_E.dtype).eval()


def _patched(task: Task, into: Into, *ways: Callable[..., DataArray]) -> tuple[DataArray, ...]:
    """The mean change of the metric with each place patched: one result for each of the ways."""
    results = [way(task, into=into) for way in ways]
    return tuple((one - one.base).mean("example") for one in results)


def _rank(truth: DataArray, estimate: DataArray) -> float:
    there = truth.notnull().values
    return rank_correlation(truth.values[there], estimate.values[there])
