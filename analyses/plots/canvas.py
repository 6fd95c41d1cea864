"""Shared by all plots: colours, grids of panels, results from plain tensors, tokens and labels."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from xarray import DataArray

from analyses.labelled import to_numpy

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
LAYERS = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7")
"A colour for each layer."
Values = DataArray | Tensor | np.ndarray
"A result: labelled, or a plain tensor or array."


def as_result(values: Values, *dims: str) -> DataArray:
    """A result with labels. A tensor or array gets the names `dims`; a DataArray keeps its own.
    ValueError unless it has as many dims. Without `dims` any shape is accepted."""
    if isinstance(values, Tensor):
        values = to_numpy(values)
    if dims and np.ndim(values) != len(dims):
        raise ValueError(
            f"wanted a result with the dims {list(dims)}, got shape {list(np.shape(values))}"
        )
    return values if isinstance(values, DataArray) else DataArray(values, dims=dims or None)


def bounds_of(result: DataArray) -> tuple[float, float]:
    """attrs["bounds"] of a result; without them its smallest value, or 0 if it is smaller, and its
    largest value."""
    low, high = result.attrs.get("bounds", (min(float(result.min()), 0.0), float(result.max())))
    return low, high


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
    """Words with escaped dollars: matplotlib would draw the words between two dollars as a formula.
    Every label with a token needs it."""
    return words.replace("$", r"\$")


def grid(
    rows: int, columns: int, size: tuple[float, float] = (1.6, 1.6)
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns small panels, and its [rows columns] array of Axes."""
    figsize = (size[0] * columns + 0.6, size[1] * rows + 0.6)
    return plt.subplots(rows, columns, figsize=figsize, squeeze=False, layout="constrained")


def axes_of(ax: Axes | None, size: tuple[float, float] = (5.0, 4.0)) -> Axes:
    """The given Axes, or the Axes of a new figure of this size in inches."""
    return ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]


def label_of(result: DataArray) -> str:
    """The name of a result in words, with its unit."""
    words = str(result.attrs.get("long_name", result.name or ""))
    return f"{words} ({result.attrs['units']})" if "units" in result.attrs else words


def padded(result: DataArray) -> tuple[float, float]:
    """Limits of an axis, a little wider than the bounds of a result."""
    low, high = result.attrs["bounds"]
    return low - 0.05 * (high - low), high + 0.08 * (high - low)
