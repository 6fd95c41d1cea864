"""Framework paper, "Two-layer attention-only transformers": how heads compose (F19, F26)."""

import numpy as np
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, head_composition
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict, figure_of
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT


def heatmaps(model: GPT) -> Drawing:
    """F19, "Q-, K-, and V-composition": the composition of every pair of heads, less chance.

    One layer-0 head, which attends mainly to the previous token, K-composes with the induction
    heads; little else does.
    """
    scores = head_composition.over_chance(model)
    axes = plots.composition(scores)
    return Drawing(
        figure_of(axes[0, 0]),
        "Q-, K- and V-composition",
        f"Framework, Composition of heads (F19), {FRAMEWORK}",
        "How much of what a layer-0 head writes (row) a later head (column) reads through its "
        "query, key or value: Frobenius norm of the product over those of the factors, less "
        f"{scores.attrs['chance']:.3f}, which random matrices give. Hatched: not above the largest "
        "score of 19 random models. Negative: reads less of it than chance.",
        _composes(model, scores),
    )


def diagram(model: GPT) -> Drawing:
    """F19, the diagram: heads of layer 0 and layer 1, wired where they compose above chance."""
    scores = head_composition.over_chance(model)
    return Drawing(
        figure_of(plots.wiring(scores, colours=_role_colours(model))),
        "Who composes with whom",
        f"Framework, Composition of heads (F19), {FRAMEWORK}",
        "The same scores as wires, the wider the more above chance; none where random models "
        "reach the score. Frames: what each head is by where it attends (orange induction, blue "
        "previous token, grey first token, green duplicate token, purple current token).",
        _composes(model, scores),
    )


def before_and_after(model: GPT) -> Drawing:
    """F26, the erratum: the diagram as first published (left), of a norm that is not composition,
    and corrected (right).

    The corrected one shows more: induction heads also K-compose with a second layer-0 head, which
    attends to the last several tokens.
    """
    wrong, right = head_composition.erratum(model), head_composition.over_chance(model)
    wrong = wrong.assign_attrs(bounds=(-wrong.attrs["chance"], 1.0), quantile=_reached(model))
    figure, axes = plots.grid(1, 2, (5.0, 4.2))
    for ax, result, title in zip(
        axes[0], (wrong, right), ("as first published: a rotated norm", "corrected"), strict=True
    ):
        plots.wiring(result, ax, colours=_role_colours(model))
        ax.set_title(title, fontsize=10)
    via_k = right.sel(via="K")
    prefix = attention.prefix_matching(model)
    heads = [str(head) for head in prefix.label.values.ravel()[(prefix.values > 0.5).ravel()]]
    partners = {
        head: [str(writer) for writer in via_k.writer.values
               if float(via_k.sel(writer=writer, reader=head)) > right.attrs["quantile"]]
        for head in heads
    }  # fmt: skip
    told = "; ".join(
        f"{head} with {', '.join(found) or 'none'}" for head, found in partners.items()
    )
    known = ~np.isnan(right.values)
    alike = np.corrcoef(wrong.values[known], right.values[known])[0, 1]
    says = (
        f"paper: corrected, two induction heads also K-compose with a second head, that attends to "
        f"the last several tokens; here induction heads K-compose above random models: "
        f"{told or 'there are none'} (the two diagrams' scores correlate by {alike:.2f})"
    )
    return Drawing(
        figure,
        "Composition before and after the erratum",
        f"Framework, Bug in composition scores (F26), {FRAMEWORK}",
        "Left: the norm of the factors multiplied in a rotated order, which the trace may be but "
        "a norm may not. Wires on both sides: above the largest score of 19 random models.",
        Verdict(sum(len(found) > 1 for found in partners.values()) >= 2, says),
    )


def _composes(model: GPT, scores: DataArray) -> Verdict:
    bar = scores.attrs["quantile"]
    count = {via: int((scores.sel(via=via) > bar).sum()) for via in "QKV"}
    best = {via: float(scores.sel(via=via).max()) for via in "QKV"}
    via_k = scores.sel(via="K")
    writer, reader = (
        str(via_k[end].values[at])
        for end, at in zip(("writer", "reader"), np.unravel_index(
            np.nanargmax(via_k.values), via_k.shape), strict=True)
    )  # fmt: skip
    previous = attention.previous_token(model)
    first = str(previous.label.values.ravel()[previous[0].values.argmax()])
    said = ", ".join(f"{count[via]} by {via} (at most {best[via]:+.3f})" for via in ("K", "Q", "V"))
    says = (
        f"paper: only K-composition, of one head that mostly attends to the previous token; here "
        f"pairs above random models: {said}, the strongest by K is {writer} to {reader}, and "
        f"{first} attends most to the previous token ({float(previous[0].max()):.2f})"
    )
    strongest = best["K"] > max(bar, best["Q"], best["V"])
    seen = float(previous[0].max()) > attention.THRESHOLD
    return Verdict(strongest and writer == first and seen, says)


def _reached(model: GPT) -> float:
    """The largest rotated norm, less chance, of random models: as `quantile` is for the true."""
    seeds = range(19)
    controls = (head_composition.erratum(at_initialisation(model, seed)) for seed in seeds)
    return max(float(control.max()) for control in controls)


def _role_colours(model: GPT) -> dict[str, str]:
    roles = attention.taxonomy(model).role
    pairs = zip(roles.label.values.ravel(), roles.values.ravel(), strict=True)
    return {str(label): plots.ROLE_COLOURS[str(role)] for label, role in pairs}
