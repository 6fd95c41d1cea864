"""Framework paper, "Bug in composition scores": which subspaces the first norm compared (F25)."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses import plots
from analyses.labelled import to_numpy
from analyses.papers.figures.record import Finding, Picture, figure
from circuits import GPTConfig, algebra, composition
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, every_head

SAME = 1e-4
DIFFERENT = 0.05
"Norms differ when their ratio is this far from 1 for the median pair of heads."
V1, O1, K2, Q2 = "$W_V^1$", "$W_O^1$", "$W_K^2$", "$W_Q^{2\\top}$"


@figure(
    "framework/erratum",
    "What the erratum's norm compared",
    "Framework, Bug in composition scores (F25)",
    "the norm was taken of a rotated product, which is valid for traces and not for norms",
    layers=2,
    identity=True,
)
def erratum(model: GPT) -> Finding:
    """The factors of W_V W_O W_K W_Q^T (K-composition), and the rotated order whose norm was taken
    by mistake: there, the directions that the query of the later head reads meet those that the
    value of the earlier head reads, which is no composition. The rotation changes the norm, and
    neither the trace nor the eigenvalues."""
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
        f"traces agree within {off:.0e}, and the rotated norm misses the true one by {gap:.0%} for "
        f"the median pair of heads (random factors: {random_gap:.0%}; over this model's pairs the "
        f"two correlate by {alike:.2f})",
        "Left: matrices as they are multiplied, in row vectors; tall and wide ends are the stream, "
        "narrow ones a head. Orange: a meeting that composition does not have. Right: both norms "
        "for every pair of heads and Q, K and V, over the norms of the two circuits.",
        picture,
    )


def _norms(model: GPT) -> Float[Tensor, "true_rotated pair"]:
    true, rotated = composition.scores(model), composition.rotated_scores(model)
    known = ~true.isnan() & (true > 0)
    return torch.stack([true[known], rotated[known]])


def _random(cfg: GPTConfig) -> GPT:
    """The heads of a model of this shape, every weight Gaussian."""
    shape = {name: getattr(cfg, name) for name in ("n_layers", "d_model", "n_heads", "d_head")}
    return GPT(GPTConfig(**shape, d_vocab=1, n_ctx=1, normalization_type=None, bias=False,
                         positional_embedding_type="none", init_range=1.0))  # fmt: skip


def _trace_error(model: GPT) -> float:
    """The largest difference of the traces of the K product and its rotation, of all pairs, as a
    share of the size of the product."""
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
