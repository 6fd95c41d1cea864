"""Framework paper, "Term importance analysis": terms of the expansion that matter (F23, F24)."""

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from analyses import plots
from analyses.papers.figures.framework.samples import ends, windows
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from analyses.terms import importance
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

ORDERS = ("direct path", "individual heads", "virtual heads")
BOTH = ["trained", "at initialisation"]
WINDOWS = 250
"The number of held-out windows."
SHOWN = 16
"The number of windows on which the control is drawn; the control is not tested."


@figure(
    "framework/term-importance",
    "Which terms of the expansion matter",
    "Framework, Term importance analysis (F23)",
    "direct path 1.8 nats, individual heads 5.2 (24 terms, 0.2 each), virtual heads 0.3 (144 "
    "terms, 0.002 each)",
    layers=2,
)
def terms(model: GPT) -> Finding:
    """The nats that the direct path, individual heads and virtual heads save, each on top of the
    terms before. In the paper individual heads save the most and virtual heads the least."""
    tokens = windows(model, WINDOWS)
    orders = importance.by_example(importance.by_order, model, tokens)
    rise = importance.by_example(importance.without_order, model, tokens).mean("example")
    saved = orders.saved.values  # window order
    direct, heads, virtual = saved[:, 0], saved[:, 1], saved[:, 2:].sum(1)
    above = {"the direct path": heads - direct, "four times virtual heads": heads - 4 * virtual,
             "0.5": heads - 0.5}  # fmt: skip
    n = [int(terms) for terms in orders.terms.values]
    paths, nats = sum(n[2:]), virtual.mean()

    def picture() -> Picture:
        start, few = at_initialisation(model), tokens[:SHOWN]
        names = [*ORDERS, *(f"paths of {n} heads" for n in range(3, len(n)))]
        counts = [f"{terms} terms" for terms in n]
        figure, axes = plots.grid(1, 2, (1.2 + 1.1 * len(n), 3.4))
        control = importance.by_order(start, few).saved.values
        rises = [rise.values, importance.without_order(start, few).values]
        pairs = ([saved.mean(0), control], rises)
        words = ("loss saved, given all before it (nats)", "rise of the loss without the order")
        for ax, values, said in zip(axes[0], pairs, words, strict=True):
            plots.paired_bars(values, ax, labels=names, names=BOTH, notes=counts)
            ax.set_ylabel(said)
        return figure

    return Finding(
        all(ends(gap)[0] > 0 for gap in above.values()),
        f"the direct path saves {direct.mean():.2f} nats, individual heads {heads.mean():.2f} "
        f"({n[1]} terms, {heads.mean() / n[1]:.2f} each), virtual heads {nats:.2f} ({paths} terms, "
        f"{nats / paths:.3f} each), and the loss is {float(orders[:, -1].mean()):.2f}; individual "
        "heads less "
        + ", ".join(f"{name} {_gap(gap)}" for name, gap in above.items())
        + "; without one order alone the loss rises by "
        + ", ".join(f"{value:.2f}" for value in rise.values)
        + f" ({len(tokens)} held-out windows); without the embedding alone in the final stream the "
        f"loss rises by {_without_embedding(model, tokens[:SHOWN]):.3f}",
        "Left: the nats that each order of terms saves. The terms that pass no head (the direct "
        "path) are compared with the uniform guess; the terms that pass one head, and then two or "
        "more, are added to the terms before. Patterns are always the patterns of the whole model; "
        "norms compute their scale again, as in the paper. Right, and not in the paper: the rise "
        "of the loss when one order alone is left out and norms are frozen. An order that is added "
        "first may save much although the model does not need it. On the right biases belong to "
        "the direct path; the last number of the verdict takes out the embedding alone, on "
        f"{SHOWN} windows. Text is held out; grey: the model at initialisation, on {SHOWN} "
        "windows. The test: individual heads save more than the direct path, more than four times "
        "the nats of virtual heads, and more than 0.5 nats; each difference has its 95% interval "
        "over windows above 0.",
        picture,
    )


def _without_embedding(model: GPT, tokens: Int[Tensor, "window pos"]) -> float:
    return float(importance.without_component(model, tokens).rise.sel(component="embed"))


def _gap(values: Float[np.ndarray, " window"]) -> str:
    low, high = ends(values)
    return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"


@figure(
    "framework/layer-importance",
    "The loss that the heads of each layer save on their own",
    "Framework, Term importance analysis (F24)",
    "the first layer's heads save 1.3 nats alone and 0.05 given the second's, the second's 5.2 and "
    "4.0",
    layers=2,
)
def layers(model: GPT) -> Finding:
    """The nats that the heads of each layer save on top of the direct path alone, and on top of the
    heads of the other layers. In the paper the second layer saves nearly all."""
    tokens = windows(model, WINDOWS)
    saved = importance.by_example(importance.by_layer, model, tokens).mean("example")
    first, last = saved.values[0], saved.values[-1]

    def picture() -> Picture:
        start = importance.by_layer(at_initialisation(model), tokens[:SHOWN])
        names = [f"layer {layer}: {'alone' if given == 'direct path' else 'given the rest'}"
                 for layer in saved.layer.values for given in saved.given.values]  # fmt: skip
        ax = plots.paired_bars(
            [saved.values.ravel(), start.values.ravel()], labels=names, names=BOTH
        )
        ax.set_ylabel("loss saved (nats)")
        return picture_of(ax)

    return Finding(
        float(last[1]) > max(5 * float(first[1]), 0.5),
        f"layer 0 saves {first[0]:.2f} nats alone and {first[1]:.2f} given the rest, layer "
        f"{saved.layer.values[-1]} {last[0]:.2f} and {last[1]:.2f} ({len(tokens)} held-out "
        "windows)",
        "The nats that the terms of one head save, by the layer of the head: on top of the direct "
        "path alone, and on top of the heads of the other layers too (given the rest). Virtual "
        "heads, and with them induction, are left out everywhere. Text is held out; grey: the "
        f"model at initialisation, on {SHOWN} windows. The test: given the rest, the last layer "
        "saves more than five times the nats of the first layer, and more than 0.5 nats.",
        picture,
    )
