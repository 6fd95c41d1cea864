"""Framework paper, "Term importance analysis": which terms of the expansion matter (F23, F24)."""

from analyses import plots
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict, figure_of, require_layers
from analyses.prompts import passages
from analyses.terms import importance
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

ORDERS = ("direct path", "individual heads", "virtual heads")


def terms(model: GPT) -> Drawing:
    """F23, "Term importance analysis": nats that the direct path, individual heads and virtual
    heads save, each on top of the ones before. Individual heads save the most, virtual heads the
    least."""
    require_layers(model, 2, "virtual heads")
    tokens = passages.tokens(model)
    orders = importance.by_order(model, tokens)
    control = importance.by_order(at_initialisation(model), tokens)
    names = [*ORDERS, *(f"paths of {n} heads" for n in range(3, orders.size))]
    ax = plots.paired_bars(
        [orders.saved.values, control.saved.values], labels=names,
        names=["trained", "at initialisation"],
        notes=[f"{n} terms" for n in orders.terms.values],
    )  # fmt: skip
    ax.set_ylabel("loss saved, given all before it (nats)")
    direct, heads, virtual = (float(x) for x in orders.saved.values[:3])
    per = [float(x) / int(n) for x, n in zip(orders.saved.values, orders.terms.values, strict=True)]
    says = (
        f"paper: direct path 1.8 nats, individual heads 5.2 (24 terms, 0.2 each), virtual heads "
        f"0.3 (144 terms, 0.002 each); here {direct:.2f}, {heads:.2f} ({orders.terms.values[1]} "
        f"terms, {per[1]:.2f} each), {virtual:.2f} ({orders.terms.values[2]} terms, {per[2]:.3f} "
        f"each), of a loss of {float(orders[-1]):.2f} on {tokens.numel():,} tokens of our passages"
    )
    return Drawing(
        figure_of(ax),
        "Which terms of the expansion matter",
        f"Framework, Term importance analysis (F23), {FRAMEWORK}",
        "Loss of the terms that pass no head, less than uniform guessing; of those that pass one "
        "head, less than that; and of those that pass two. Patterns are those of the whole model "
        "throughout, norms are taken anew, as in the paper. Measured on text of ours.",
        Verdict(heads > max(direct, 4 * virtual, 0.5), says),
    )


def layers(model: GPT) -> Drawing:
    """F24, "Term importance analysis" by layer: what the heads of each layer save alone over the
    direct path, and on top of the other layer's. The paper's second layer does nearly all."""
    require_layers(model, 2, "virtual heads")
    tokens = passages.tokens(model)
    saved = importance.by_layer(model, tokens)
    control = importance.by_layer(at_initialisation(model), tokens)
    names = [f"layer {layer}: {'alone' if given == 'direct path' else 'given the rest'}"
             for layer in saved.layer.values for given in saved.given.values]  # fmt: skip
    ax = plots.paired_bars(
        [saved.values.ravel(), control.values.ravel()],
        labels=names,
        names=["trained", "at initialisation"],
    )
    ax.set_ylabel("loss saved (nats)")
    first, last = saved.values[0], saved.values[-1]
    says = (
        f"paper: the first layer's heads save 1.3 nats alone and 0.05 given the second's, the "
        f"second's 5.2 and 4.0; here layer 0 saves {first[0]:.2f} and {first[1]:.2f}, layer "
        f"{saved.layer.values[-1]} {last[0]:.2f} and {last[1]:.2f}"
    )
    return Drawing(
        figure_of(ax),
        "What the heads of each layer save on their own",
        f"Framework, Term importance analysis (F24), {FRAMEWORK}",
        "Terms that pass exactly one head, by its layer: over the direct path alone, and with the "
        "other layers' heads there already. Virtual heads, and with them induction, are left out "
        "on both sides.",
        Verdict(float(last[1]) > max(5 * float(first[1]), 0.5), says),
    )
