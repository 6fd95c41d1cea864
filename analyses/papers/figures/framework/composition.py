"""Framework paper, "Two-layer attention-only transformers": how heads compose (F19), and the
erratum's diagram of it (F26)."""

import numpy as np
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, head_composition
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

ONLY_K = "only K-composition, of one head that mostly attends to the previous token"


@figure(
    "framework/composition",
    "Q-, K- and V-composition",
    "Framework, Composition of heads (F19)",
    ONLY_K,
)
def heatmaps(model: GPT) -> Finding:
    """The composition of every pair of heads, less chance. One layer-0 head, which attends mainly
    to the previous token, K-composes with the induction heads; little else does."""
    scores = head_composition.over_chance(model)
    return Finding(
        *_composes(model, scores),
        "How much of what a layer-0 head writes (row) a later head (column) reads through its "
        "query, key or value: Frobenius norm of the product over those of the factors, less "
        f"{scores.attrs['chance']:.3f}, which random matrices give. Hatched: not above the largest "
        "score of 19 random models. Negative: reads less of it than chance.",
        lambda: picture_of(plots.composition(scores)[0, 0]),
    )


@figure(
    "framework/wiring",
    "Who composes with whom",
    "Framework, Composition of heads (F19)",
    ONLY_K,
    same_as="framework/composition",
)
def diagram(model: GPT) -> Finding:
    """The heads of layer 0 and layer 1, wired where they compose above chance."""
    scores = head_composition.over_chance(model)
    return Finding(
        *_composes(model, scores),
        "The same scores as wires, the wider the more above chance; none where random models "
        "reach the score. Frames: what each head is by where it attends (orange induction, blue "
        "previous token, grey first token, green duplicate token, purple current token).",
        lambda: picture_of(plots.wiring(scores, colours=_role_colours(model))),
    )


@figure(
    "framework/erratum-diagrams",
    "Composition before and after the erratum",
    "Framework, Bug in composition scores (F26)",
    "corrected, two induction heads also K-compose with a second head, that attends to the last "
    "several tokens",
)
def before_and_after(model: GPT) -> Finding:
    """The diagram as first published (left), of a norm that is not composition, and corrected
    (right). The corrected one shows more: induction heads also K-compose with a second layer-0
    head, which attends to the last several tokens."""
    wrong, right = head_composition.erratum(model), head_composition.over_chance(model)
    via_k = right.sel(via="K")
    prefix = attention.prefix_matching(model)
    partners = {
        str(head): [str(writer) for writer in via_k.writer.values
                    if float(via_k.sel(writer=writer, reader=head)) > right.attrs["quantile"]]
        for head in prefix.label.values.ravel()[(prefix.values > 0.5).ravel()]
    }  # fmt: skip
    told = "; ".join(
        f"{head} with {', '.join(found) or 'none'}" for head, found in partners.items()
    )
    known = ~np.isnan(right.values)
    alike = np.corrcoef(wrong.values[known], right.values[known])[0, 1]

    def picture() -> Picture:
        attrs = {"bounds": (-wrong.attrs["chance"], 1.0), "quantile": _reached(model)}
        figure, axes = plots.grid(1, 2, (5.0, 4.2))
        shown = {"as first published: a rotated norm": wrong.assign_attrs(attrs),
                 "corrected": right}  # fmt: skip
        for ax, (title, result) in zip(axes[0], shown.items(), strict=True):
            plots.wiring(result, ax, colours=_role_colours(model))
            ax.set_title(title, fontsize=10)
        return figure

    return Finding(
        sum(len(found) > 1 for found in partners.values()) >= 2,
        f"induction heads K-compose above random models: {told or 'there are none'} (the two "
        f"diagrams' scores correlate by {alike:.2f})",
        "Left: the norm of the factors multiplied in a rotated order, which the trace may be but "
        "a norm may not. Wires on both sides: above the largest score of 19 random models.",
        picture,
    )


def _composes(model: GPT, scores: DataArray) -> tuple[bool, str]:
    bar = scores.attrs["quantile"]
    count = {via: int((scores.sel(via=via) > bar).sum()) for via in "QKV"}
    best = {via: float(scores.sel(via=via).max()) for via in "QKV"}
    via_k = scores.sel(via="K")
    at = np.unravel_index(np.nanargmax(via_k.values), via_k.shape)
    writer, reader = (str(via_k[end].values[i]) for end, i in zip(via_k.dims, at, strict=True))
    previous = attention.previous_token(model)
    first = str(previous.label.values.ravel()[previous[0].values.argmax()])
    seen = float(previous[0].max())
    said = ", ".join(f"{count[via]} by {via} (at most {best[via]:+.3f})" for via in ("K", "Q", "V"))
    return (
        best["K"] > max(bar, best["Q"], best["V"])
        and writer == first
        and seen > attention.THRESHOLD,
        f"pairs above random models: {said}, the strongest by K is {writer} to {reader}, and "
        f"{first} attends most to the previous token ({seen:.2f})",
    )


def _reached(model: GPT) -> float:
    """The largest rotated norm, less chance, of random models: as `quantile` is for the true."""
    controls = (head_composition.erratum(at_initialisation(model, seed)) for seed in range(19))
    return max(float(control.max()) for control in controls)


def _role_colours(model: GPT) -> dict[str, str]:
    roles = attention.taxonomy(model).role
    pairs = zip(roles.label.values.ravel(), roles.values.ravel(), strict=True)
    return {str(label): plots.ROLE_COLOURS[str(role)] for label, role in pairs}
