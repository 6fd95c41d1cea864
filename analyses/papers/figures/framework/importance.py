"""Framework paper, "Term importance analysis": which terms of the expansion matter (F23, F24)."""

from analyses import plots
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from analyses.prompts import passages
from analyses.terms import importance
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

ORDERS = ("direct path", "individual heads", "virtual heads")
BOTH = ["trained", "at initialisation"]


@figure(
    "framework/term-importance",
    "Which terms of the expansion matter",
    "Framework, Term importance analysis (F23)",
    "direct path 1.8 nats, individual heads 5.2 (24 terms, 0.2 each), virtual heads 0.3 (144 "
    "terms, 0.002 each)",
    layers=2,
)
def terms(model: GPT) -> Finding:
    """The nats that the direct path, individual heads and virtual heads save, each on top of those
    before. Individual heads save the most, virtual heads the least."""
    tokens = passages.tokens(model)
    orders = importance.by_order(model, tokens)
    direct, heads, virtual = (float(x) for x in orders.saved.values[:3])
    n = [int(terms) for terms in orders.terms.values]

    def picture() -> Picture:
        start = importance.by_order(at_initialisation(model), tokens)
        names = [*ORDERS, *(f"paths of {n} heads" for n in range(3, orders.size))]
        counts = [f"{n} terms" for n in orders.terms.values]
        ax = plots.paired_bars([orders.saved.values, start.saved.values], labels=names, names=BOTH,
                               notes=counts)  # fmt: skip
        ax.set_ylabel("loss saved, given all before it (nats)")
        return picture_of(ax)

    return Finding(
        heads > max(direct, 4 * virtual, 0.5),
        f"{direct:.2f}, {heads:.2f} ({n[1]} terms, {heads / n[1]:.2f} each), {virtual:.2f} ({n[2]} "
        f"terms, {virtual / n[2]:.3f} each), of a loss of {float(orders[-1]):.2f} on "
        f"{tokens.numel():,} tokens of our passages",
        "Loss of the terms that pass no head, less than uniform guessing; of those that pass one "
        "head, less than that; and of those that pass two. Patterns are those of the whole model "
        "throughout, norms are taken anew, as in the paper. Measured on text of ours.",
        picture,
    )


@figure(
    "framework/layer-importance",
    "What the heads of each layer save on their own",
    "Framework, Term importance analysis (F24)",
    "the first layer's heads save 1.3 nats alone and 0.05 given the second's, the second's 5.2 and "
    "4.0",
    layers=2,
)
def layers(model: GPT) -> Finding:
    """The nats that the heads of each layer save alone over the direct path, and on top of the
    heads of the other layer. In the paper the second layer saves nearly all."""
    tokens = passages.tokens(model)
    saved = importance.by_layer(model, tokens)
    first, last = saved.values[0], saved.values[-1]

    def picture() -> Picture:
        start = importance.by_layer(at_initialisation(model), tokens)
        names = [f"layer {layer}: {'alone' if given == 'direct path' else 'given the rest'}"
                 for layer in saved.layer.values for given in saved.given.values]  # fmt: skip
        ax = plots.paired_bars(
            [saved.values.ravel(), start.values.ravel()], labels=names, names=BOTH
        )
        ax.set_ylabel("loss saved (nats)")
        return picture_of(ax)

    return Finding(
        float(last[1]) > max(5 * float(first[1]), 0.5),
        f"layer 0 saves {first[0]:.2f} and {first[1]:.2f}, layer {saved.layer.values[-1]} "
        f"{last[0]:.2f} and {last[1]:.2f}",
        "Terms that pass exactly one head, by its layer: over the direct path alone, and with the "
        "other layers' heads there already. Virtual heads, and with them induction, are left out "
        "on both sides.",
        picture,
    )
