"""What all plots share: the palette, grids of panels, tokens and labels in words."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataArray

ROLE_COLOURS = {
    "induction": "#D55E00",
    "previous token": "#0072B2",
    "duplicate token": "#009E73",
    "current token": "#CC79A7",
    "first token": "#8C8C8C",
    "-": "#333333",
}
"Okabe and Ito's colour-blind-safe palette."
TRAINED, CONTROL = "#0072B2", "#8C8C8C"


def show_token(token: str) -> str:
    """A token with its whitespace made visible: a leading space as an underlined blank."""
    return (
        token.replace("<|endoftext|>", "BOS")
        .replace(" ", "␣")
        .replace("\n", "⏎")
        .replace("\t", "⇥")
        .replace("\r", "␍")
    )


def literal(words: str) -> str:
    """Words that matplotlib draws as they are: what stands between two dollars it would take for a
    formula. For every label that holds a token."""
    return words.replace("$", r"\$")


def grid(
    rows: int, columns: int, size: tuple[float, float] = (1.6, 1.6)
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns small panels, and its [rows columns] array of Axes."""
    figsize = (size[0] * columns + 0.6, size[1] * rows + 0.6)
    return plt.subplots(rows, columns, figsize=figsize, squeeze=False, layout="constrained")


def axes_of(ax: Axes | None, size: tuple[float, float] = (5.0, 4.0)) -> Axes:
    """The Axes given, or those of a new figure of this size in inches."""
    return ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]


def label_of(result: DataArray) -> str:
    """What a result is, in words, with its unit."""
    words = str(result.attrs.get("long_name", result.name or ""))
    return f"{words} ({result.attrs['units']})" if "units" in result.attrs else words


def padded(result: DataArray) -> tuple[float, float]:
    """Limits of an axis a little wider than the bounds of a result."""
    low, high = result.attrs["bounds"]
    return low - 0.05 * (high - low), high + 0.08 * (high - low)
