"""Induction heads, appendix: scores of heads on random tokens against their weights (A3, A4)."""

from collections.abc import Callable, Sequence

import numpy as np
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, copying, induction
from analyses.labelled import rank_correlation
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run
from circuits.ground_truth.controls import at_initialisation
from circuits.io import load
from circuits.model import GPT

Pairs = Sequence[tuple[DataArray, DataArray]]
"Two measures of the heads of each model."
WHERE = "Induction heads, evaluators checked against weights"
FEWEST = 24
"A correlation needs at least this number of heads."
RHO, LOW = 0.7, 0.4
"The least rank correlation of two measures that agree, and the least lower end of its interval."
AGREE = (
    f"The test: Spearman's rank correlation of the two is above {RHO}, and the lower end of its "
    f"interval above {LOW}, over {FEWEST} heads or more."
)


@history_figure(
    "induction/copying-evaluator",
    "Two measures of copying",
    f"{WHERE} (A3)",
    "the copying evaluator agrees with the OV circuit's eigenvalues",
)
def copying_evaluator(of: Sequence[Run]) -> Finding:
    """Copying on random tokens against the eigenvalues of the OV circuit. The claim: they agree."""
    return _agreement(
        [load(run.name) for run in of if run.cfg.n_layers],
        lambda model: (induction.copying(model), copying.score(model)),
        "sum(eig) / sum(|eig|) of OV",
        "Each point is a head: the share of the attended token in the logits that it raises on "
        "random tokens, against the eigenvalue score of its OV circuit. Hollow: at initialisation. "
        f"{AGREE}",
    )


@history_figure(
    "induction/prefix-evaluator",
    "Two measures of prefix matching",
    f"{WHERE} (A4)",
    "the prefix matching evaluator agrees with the trace of QK eigenvalues",
)
def prefix_evaluator(of: Sequence[Run]) -> Finding:
    """Prefix matching on random tokens against the trace of the QK circuit composed with
    previous-token heads, for every head after layer 0. The claim: they agree."""
    return _agreement(
        [load(run.name) for run in of if run.cfg.n_layers > 1],
        lambda model: (attention.prefix_matching(model)[1:], induction.qk_trace(model)[1:]),
        "trace of QK eigenvalues",
        "Each point is a head after layer 0: its prefix matching on random tokens said four times, "
        "against the trace of its QK circuit composed with previous-token heads. Hollow: at "
        f"initialisation. {AGREE}",
    )


def correlation(pairs: Pairs) -> tuple[float, float, float]:
    """Spearman's rank correlation over all heads, and the ends of its 95% interval, by Fisher's z
    with the variance 1.06 / (n - 3); NaN for fewer than FEWEST heads. (Fieller, Hartley and Pearson
    1957, "Tests for rank correlation coefficients")"""
    n = sum(one[0].size for one in pairs)
    if n < FEWEST:
        return float("nan"), float("nan"), float("nan")
    x, y = (np.concatenate([one[i].values.ravel() for one in pairs]) for i in (0, 1))
    rho = rank_correlation(x, y)
    middle, half = np.arctanh(np.clip(rho, -1 + 1e-9, 1 - 1e-9)), 1.96 * (1.06 / (n - 3)) ** 0.5
    return rho, float(np.tanh(middle - half)), float(np.tanh(middle + half))


def _agreement(
    models: Sequence[GPT],
    both: Callable[[GPT], tuple[DataArray, DataArray]],
    ylabel: str,
    caption: str,
) -> Finding:
    """The finding whether both measures agree over the heads of all models."""
    trained = [both(model) for model in models]
    start = [both(at_initialisation(model)) for model in models]
    rho, low, high = correlation(trained)
    n = sum(one[0].size for one in trained)
    here = f"{n} heads are too few for a test, which needs {FEWEST}"
    if n >= FEWEST:
        here = (
            f"rank correlation {rho:.2f} over {n} heads (interval {low:.2f} to {high:.2f}), at "
            f"initialisation {correlation(start)[0]:+.2f}"
        )

    def picture() -> Picture:
        figure, axes = plots.grid(1, 1, (5.2, 3.8))
        ax = axes[0, 0]
        for pairs, colour, name in ((start, plots.CONTROL, "at initialisation"),
                                    (trained, plots.TRAINED, "trained")):  # fmt: skip
            for i, (x, y) in enumerate(pairs):
                plots.head_points(x, y, ax, colours=[colour] * x.size, hollow=pairs is start,
                                  name=name if i == 0 else "")  # fmt: skip
        ax.set_ylabel(ylabel)
        if trained:
            ax.legend(frameon=False, fontsize=8)
        return figure

    agrees = bool(rho > RHO and low > LOW) if n >= FEWEST else None
    return Finding(agrees, here, caption, picture)
