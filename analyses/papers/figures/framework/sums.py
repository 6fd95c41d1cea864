"""Figures whose parts sum to a whole: the short prompt that they are drawn on, the tolerance of a
sum, and the picture of the terms."""

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
"A sum equals the truth if no entry misses it by more than this share of the largest (or of 1)."
ONE_LAYER = r"T = Id \otimes W_U W_E + \sum_h A^h \otimes (W_U W_{OV}^h W_E)"
NOTE = (
    "Equations in the paper's column vectors, without norms, biases and positions. In the numbers "
    "each norm is linear, its 1/sigma that of this run, and what positions, biases and MLPs write "
    "goes with the paths that begin there."
)


def prompt(model: GPT) -> Int[Tensor, "1 pos"]:
    """A sentence of ours that begins to repeat itself, BOS first, cut to 24 tokens; for a model
    that reads no text, BOS and random tokens said twice."""
    if model.tokenizer is None:
        length = min(LONGEST, model.cfg.n_ctx) // 2 - 1
        return prompts.repeated(model, max(length, 1), batch=1)
    return model.to_tokens(WORDS)[:, : min(LONGEST, model.cfg.n_ctx)]


def adds_up(error: float, largest: float) -> bool:
    """Whether a sum that misses entries up to `largest` by `error` equals the truth."""
    return error < SMALL * max(1.0, largest)


def sizes(found: DataArray, they: str) -> str:
    """The mean sizes of `they`, the terms, and the error of their sum, in words."""
    mean = found.mean("pos")
    said = ", ".join(f"{label} {float(mean.sel(term=label)):.2f}" for label in found.term.values)
    error, largest = found.attrs["error"], found.attrs["largest"]
    return f"{they} ({said}) sum to them up to {error:.0e} of values up to {largest:.1f}"


def rows(heights: list[float], width: float = 9.2) -> tuple[Picture, list[Axes]]:
    """Panels of these heights in inches, one above the other."""
    size = (width + 0.6, sum(heights) + 0.6)
    figure, axes = plt.subplots(len(heights), figsize=size, height_ratios=heights, squeeze=False,
                                layout="constrained")  # fmt: skip
    return figure, list(axes[:, 0])


def terms(model: GPT, tokens: Int[Tensor, "1 pos"], found: DataArray, lines: list[str]) -> Picture:
    """Formulas above the sizes of their terms on each token."""
    figure, (top, bottom) = rows([0.5 * len(lines), 0.3 * len(found) + 1.3])
    plots.formula(lines, top)
    plots.terms(found, words_of(model, tokens), bottom)
    return figure
