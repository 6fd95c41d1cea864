"""Framework paper, "Two-layer attention-only transformers": how heads compose (F19). "Bug in
composition scores": the subspaces that the first norm compared (F25), and the corrected diagram
(F26)."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, head_composition
from analyses.labelled import to_numpy
from analyses.papers.figures.framework.samples import (
    LACKING,
    induction_heads,
    previous_token_head,
)
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from circuits import algebra, composition
from circuits.ground_truth.controls import at_initialisation
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, GPTConfig, every_head

ONLY_K = "only K-composition, of one head that mostly attends to the previous token"
BAR = "the 95% bar for the largest of all pairs when each head is rotated at random"
TEST = (
    f"The test: the strongest pair of all is above {BAR} and keeps its singular values; this pair "
    "is K-composition with the head of layer 0 that attends most to the token before; no pair is "
    "above the bar by Q or V."
)
SEVERAL = 6
"The last several tokens are the tokens at distances 0 to this number."
SAME = 1e-4
"Traces agree if they differ by less than this share of the size of the product."
DIFFERENT = 0.05
"Norms differ if their ratio is farther than this from 1 for the median pair of heads."
V1, O1, K2, Q2 = "$W_V^1$", "$W_O^1$", "$W_K^2$", "$W_Q^{2\\top}$"


@figure(
    "framework/composition",
    "Q-, K- and V-composition",
    "Framework, Composition of heads (F19)",
    ONLY_K,
)
def heatmaps(model: GPT) -> Finding:
    """The composition of every pair of heads, less chance. The claim: one head of layer 0, which
    attends mainly to the previous token, K-composes with the induction heads, and little else
    composes."""
    scores = head_composition.over_chance(model, null="rotated")
    return Finding(
        *_composes(model, scores),
        "Each cell is the score of a pair: a later head (column) reads the output of an earlier "
        "head (row) through its query, key or value. The score is the Frobenius norm of the "
        "product over the norms of its factors, less "
        f"{scores.attrs['chance']:.3f}, the value for random matrices. Hatched: not above {BAR}. "
        f"Negative: the later head reads less than by chance. {TEST}",
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
    """The heads of all layers, with a wire between two heads that compose above chance."""
    scores = head_composition.over_chance(model, null="rotated")
    return Finding(
        *_composes(model, scores),
        "The scores of the figure before as wires. A wider wire is a score farther above chance; a "
        f"pair that is not above {BAR} has no wire. Frames: the role of each head by its attention "
        "(orange induction, blue previous token, grey first token, green duplicate token, purple "
        f"current token). {TEST}",
        lambda: picture_of(plots.wiring(scores, colours=_role_colours(model))),
    )


@figure(
    "framework/erratum",
    "The subspaces that the erratum's norm compared",
    "Framework, Bug in composition scores (F25)",
    "the norm was taken of a rotated product, which is valid for traces and not for norms",
    layers=2,
    identity=True,
)
def erratum(model: GPT) -> Finding:
    """The factors of W_V W_O W_K W_Q^T (K-composition), and the rotated order whose norm was taken
    by mistake. In the rotated order the directions that the later head's query reads meet the
    directions that the earlier head's value reads, which is no composition. The rotation changes
    the norm, but not the trace and not the eigenvalues."""
    with torch.no_grad():
        ours, random = _norms(model), _norms(_random(model.cfg))
        off = _trace_error(model)
    gap, random_gap = (float((pair[1] / pair[0] - 1).abs().median()) for pair in (ours, random))
    alike = float(np.corrcoef(to_numpy(ours))[0, 1])

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.7, 3.8))
        plots.chains(
            {"meant: from stream to stream": [V1, O1, K2, Q2],
             "computed: rotated": [O1, K2, Q2, V1]},
            axes[0, 0], shapes={V1: (4.0, 1.0), O1: (1.0, 4.0), K2: (4.0, 1.0), Q2: (1.0, 4.0)},
            meets={(O1, K2): "written, read\nas key", (Q2, V1): "read as query,\nread as value"},
            wrong=(Q2, V1),
        )  # fmt: skip
        ax = axes[0, 1]
        for (true, rotated), colour, name in ((random, plots.CONTROL, "random factors"),
                                              (ours, plots.TRAINED, "this model")):  # fmt: skip
            ax.scatter(true, rotated, s=16, color=colour, alpha=0.8, lw=0, label=name)
        high = 1.08 * float(max(ours.max(), random.max()))
        ax.plot([0, high], [0, high], color="0.3", ls="--", lw=0.8, label="equal")
        ax.set(xlim=(0, high), ylim=(0, high), xlabel="norm of the product (composition)",
               ylabel="norm of the rotated product")  # fmt: skip
        ax.legend(frameon=False, fontsize=8)
        return figure

    return Finding(
        off < SAME and min(gap, random_gap) > DIFFERENT,
        f"traces agree within {off:.0e}, and the rotated norm misses the true norm by {gap:.0%} "
        f"for the median pair of heads (random factors: {random_gap:.0%}; over this model's pairs "
        f"the two norms correlate by {alike:.2f})",
        "Left: the order in which the matrices are multiplied, in row vectors; a wide end is the "
        "stream, a narrow end is a head. Orange: a meeting that composition does not have. Right: "
        "both norms for every pair of heads and Q, K and V, over the norms of the two circuits. "
        "The test: for every pair the trace of the rotated K-product is the trace of the product; "
        f"the two norms differ by more than {DIFFERENT:.0%} for the median pair, in this model and "
        "in random factors.",
        picture,
    )


@figure(
    "framework/erratum-diagrams",
    "Composition before and after the erratum",
    "Framework, Bug in composition scores (F26)",
    "corrected, two induction heads also K-compose with a second head, that attends to the last "
    "several tokens",
)
def before_and_after(model: GPT) -> Finding:
    """The diagram as first published (left), from a norm that is not composition, and the corrected
    diagram (right). The claim: the corrected diagram shows more, for induction heads also K-compose
    with a second head of layer 0, which attends to the last several tokens."""
    wrong = head_composition.erratum(model)
    right = head_composition.over_chance(model, null="rotated")
    heads, previous = induction_heads(model), str(previous_token_head(model))
    near = _near(model)
    partners = {str(head): _partners(right, str(head)) for head in heads}
    second = {head: [name for name in found if name != previous and _is_spread(near[name])]
              for head, found in partners.items() if len(found) > 1}  # fmt: skip
    told = "; ".join(f"{head} with {_with_attention(found, near)}"
                     for head, found in partners.items())  # fmt: skip
    counted = sum(bool(found) for found in second.values())
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
        counted >= 2 if heads else None,
        f"{counted} of {len(heads)} induction heads K-compose with a second head whose attention "
        f"is spread ({told or LACKING}; {previous} attends most to the token before; the two "
        f"diagrams' scores correlate by {alike:.2f})",
        "Left: wires by the norm of the factors in a rotated order, which keeps the trace of the "
        "product but not its norm; a wire is above the largest score of 19 random models. Right: "
        f"wires by the norm of the product; a wire is above {BAR}. The test: two induction heads "
        "or more each K-compose above this bar with two heads or more; one of the two is not the "
        "head of layer 0 that attends most to the token before, and its attention is spread. "
        "Attention is spread if, on random tokens and without the first token, more than half of "
        f"it is on distances 0 to {SEVERAL}, and no more than half on one of them.",
        picture,
    )


def _composes(model: GPT, scores: DataArray) -> tuple[bool, str]:
    bar, first = scores.attrs["quantile"], previous_token_head(model)
    count = {via: int((scores.sel(via=via) > bar).sum()) for via in "QKV"}
    best = {via: float(scores.sel(via=via).max()) for via in "QKV"}
    at = np.unravel_index(np.nanargmax(scores.values), scores.shape)
    via, writer, reader = (str(scores[end].values[i])
                           for end, i in zip(scores.dims, at, strict=True))  # fmt: skip
    seen = float(attention.previous_token(model)[0, first.head])
    said = ", ".join(f"{count[via]} by {via} (at most {best[via]:+.3f})" for via in ("K", "Q", "V"))
    return (
        via == "K" and best["K"] > bar and writer == str(first) and not count["Q"] + count["V"],
        f"pairs above the bar of {bar:+.3f}: {said}; the strongest is {writer} to {reader} by "
        f"{via}, and {first} attends most to the previous token ({seen:.2f})",
    )


def _near(model: GPT) -> dict[str, np.ndarray]:
    """The share of each head's attention at each of the last distances, without the first token."""
    found = attention.nearby(model, reach=SEVERAL)
    names = found.label.values.ravel()
    return dict(zip(map(str, names), found.values.reshape(len(names), -1), strict=True))


def _is_spread(near: np.ndarray) -> bool:
    return bool(near.sum() > 0.5 >= near.max())


def _partners(scores: DataArray, reader: str) -> list[str]:
    """The heads that a head K-composes with above the bar, the strongest first."""
    via_k = scores.sel(via="K", reader=reader)
    above = via_k[(via_k > scores.attrs["quantile"]).values]
    return [str(name) for name in above.writer.values[np.argsort(-above.values)]]


def _with_attention(heads: Sequence[str], near: Mapping[str, np.ndarray]) -> str:
    """Heads with the share of their attention on the last distances, and the largest share on
    one."""
    return ", ".join(f"{name} ({near[name].sum():.2f}, at most {near[name].max():.2f} at distance "
                     f"{near[name].argmax()})" for name in heads) or "none"  # fmt: skip


def _reached(model: GPT) -> float:
    """The largest rotated norm, less chance, of random models. For the true norm this is
    `quantile`."""
    controls = (head_composition.erratum(at_initialisation(model, seed)) for seed in range(19))
    return max(float(control.max()) for control in controls)


def _role_colours(model: GPT) -> dict[str, str]:
    roles = attention.taxonomy(model).role
    pairs = zip(roles.label.values.ravel(), roles.values.ravel(), strict=True)
    return {str(label): plots.ROLE_COLOURS[str(role)] for label, role in pairs}


def _norms(model: GPT) -> Float[Tensor, "true_rotated pair"]:
    true, rotated = composition.scores(model), composition.rotated_scores(model)
    known = ~true.isnan() & (true > 0)
    return torch.stack([true[known], rotated[known]])


def _random(cfg: GPTConfig) -> GPT:
    """A model with heads of this shape. Every weight is Gaussian."""
    shape = {name: getattr(cfg, name) for name in ("n_layers", "d_model", "n_heads", "d_head")}
    return GPT(GPTConfig(**shape, d_vocab=1, n_ctx=1, normalization_type=None, bias=False,
                         positional_embedding_type="none", init_range=1.0))  # fmt: skip


def _trace_error(model: GPT) -> float:
    """The largest difference, over all pairs, between the trace of the K product and the trace of
    its rotation, as a share of the size of the product."""
    W_Q, W_K, W_V = (algebra.reads(model, what).double() for what in ("Q", "K", "V"))
    W_O, worst = algebra.writes(model).double(), 0.0
    for first in every_head(model.cfg):
        for later in every_head(model.cfg):
            if first.layer < later.layer:
                A, M = (W_V[first], W_O[first]), (W_K[later], W_Q[later].T)
                product = FactoredMatrix(*A, *M)
                rotated = torch.trace(A[1] @ M[0] @ (M[1] @ A[0]))
                size = product.norm().clamp(min=1e-30)
                worst = max(worst, float((product.trace() - rotated).abs() / size))
    return worst
