"""Tools for figures whose parts sum to a whole: the short prompt, the tolerance of a sum, and the
picture of the terms."""

import matplotlib.pyplot as plt
from jaxtyping import Int
from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray

from analyses import plots, prompts
from analyses.labelled import words_of
from analyses.papers.figures.record import Picture
from circuits.model import GPT

WORDS = "The captain of the ship said that the captain of the"
LONGEST = 24
"The number of tokens of the prompt that are shown."
SMALL = 1e-4
"A sum equals the whole if its error is below this share of the largest entry (or of 1)."
ONE_LAYER = r"T = Id \otimes W_U W_E + \sum_h A^h \otimes (W_U W_{OV}^h W_E)"
NOTE = (
    "Equations are in the paper's column vectors, without norms, biases and positions. In the "
    "numbers each norm is linear, with the 1/sigma of this run; the vectors of positions, biases "
    "and MLPs belong to the paths that begin there."
)


def prompt(model: GPT) -> Int[Tensor, "1 pos"]:
    """A sentence of ours that begins to repeat itself, BOS first, cut to 24 tokens. For a model
    that reads no text, BOS and random tokens said twice."""
    if model.tokenizer is None:
        length = min(LONGEST, model.cfg.n_ctx) // 2 - 1
        return prompts.repeated(model, max(length, 1), batch=1)
    return model.to_tokens(WORDS)[:, : min(LONGEST, model.cfg.n_ctx)]


def adds_up(error: float, largest: float) -> bool:
    """Whether a sum equals the whole, by its `error` and the `largest` entry of the whole."""
    return error < SMALL * max(1.0, largest)


def sizes(found: DataArray, terms: str, whole: str) -> str:
    """The mean size of each term and the error of their sum, in words. `terms` and `whole` name the
    terms and their sum."""
    mean = found.mean("pos")
    said = ", ".join(f"{label} {float(mean.sel(term=label)):.2f}" for label in found.term.values)
    error, largest = found.attrs["error"], found.attrs["largest"]
    return (
        f"{terms} ({said}) sum to {whole}, with an error of at most {error:.0e} of values up to "
        f"{largest:.1f}"
    )


def rows(heights: list[float], width: float = 9.2) -> tuple[Picture, list[Axes]]:
    """Panels of these heights in inches, one above the other."""
    size = (width + 0.6, sum(heights) + 0.6)
    figure, axes = plt.subplots(len(heights), figsize=size, height_ratios=heights, squeeze=False,
                                layout="constrained")  # fmt: skip
    return figure, list(axes[:, 0])


def terms(model: GPT, tokens: Int[Tensor, "1 pos"], found: DataArray, lines: list[str]) -> Picture:
    """Draw formulas, and below them the sizes of the terms at each token."""
    figure, (top, bottom) = rows([0.5 * len(lines), 0.3 * len(found) + 1.3])
    plots.formula(lines, top)
    plots.terms(found, words_of(model, tokens), bottom)
    return figure
