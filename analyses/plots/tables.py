"""Tables of tokens as figures."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas import DataFrame
from xarray import DataArray

from analyses.plots.canvas import axes_of, literal, show_token
from analyses.plots.cells import BLUE, ORANGE, check_columns, ends, strength

CHARACTER, LINE = 0.072, 0.25
"Inches of a character in monospace, and of a row."
LONGEST = 14
"Characters of a token that are shown before it is cut."
ABOVE, BELOW = (tuple(part / 255 for part in colour) for colour in (BLUE, ORANGE))
SIGNED = LinearSegmentedColormap.from_list("signed", [BELOW, "white", ABOVE])


def token_table(frame: DataFrame, widths: Mapping[str, int], limit: float | None = None) -> Figure:
    """The columns named in `widths` (in characters) as a figure. In a cell that is a list of
    (token, value) each token stands on the colour of its value, blue above 0 and orange below, full
    at `limit`, by default the largest size in its column; what does not fit a cell is left out.

    KeyError for a column that is not there.
    """
    check_columns(frame, widths)
    scales = ends(frame, {} if limit is None else dict.fromkeys(widths, limit))
    wide, high = sum(widths.values()), len(frame) + 1
    figure, ax = plt.subplots(figsize=(wide * CHARACTER + 0.2, high * LINE + 0.2))
    ax.set(xlim=(0, wide), ylim=(high, 0))
    ax.axis("off")
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.98)
    left = 0.0
    for name, width in widths.items():
        _write(ax, left, 0.5, name.replace("_", " "), weight="bold")
        for row, cell in enumerate(frame[name], 1):
            if isinstance(cell, list):
                _tokens(ax, left, row + 0.5, width, cell, scales[name])
            else:
                said = f"{cell:.3g}" if isinstance(cell, float) else _short(str(cell), width - 1)
                _write(ax, left, row + 0.5, said)
        left += width
    for row in range(1, high):
        ax.axhline(row, color="0.8", linewidth=0.6)
    return figure


def spelling_grid(grid: DataArray, ax: Axes | None = None, title: str = "") -> Axes:
    """A grid of `skip_trigrams.spelling_grid`: each cell on the colour of its value, with what its
    two pieces spell; words are bold, forced cells framed."""
    rows, columns = grid.shape
    ax = axes_of(ax, (1.05 * columns + 1.2, 0.5 * rows + 1.2))
    end = float(np.abs(grid.values).max(initial=0.0)) or 1.0
    shown = ax.imshow(grid.values, cmap=SIGNED, vmin=-end, vmax=end, alpha=0.75, aspect="auto")
    bar = plt.colorbar(shown, ax=ax)
    bar.set_label("QK score x OV effect")
    for i, first in enumerate(grid.destination.values):
        for j, rest in enumerate(grid.out.values):
            word = bool(grid.spells[i, j])
            said = _short(f"{first}{rest}".replace("\n", "⏎"))
            ax.text(j, i, literal(said), ha="center", va="center", fontsize=8,
                    weight="bold" if word else "normal")  # fmt: skip
            if bool(grid.forced[i, j]):
                box = Rectangle((j - 0.46, i - 0.43), 0.92, 0.86, fill=False, linewidth=1.4)
                ax.add_patch(box)
    ax.set_xticks(range(columns), [literal(show_token(str(name))) for name in grid.out.values])
    destinations = [literal(show_token(str(name))) for name in grid.destination.values]
    ax.set_yticks(range(rows), destinations)
    ax.set(xlabel="out", ylabel="destination", title=title)
    return ax


def _tokens(
    ax: Axes, left: float, y: float, width: int, cell: Sequence[tuple[str, float]], end: float
) -> None:
    x = left + 0.5
    for token, value in cell:
        said = _short(show_token(token))
        if x + len(said) + 1 > left + width:
            break
        colour = (*(ABOVE if value >= 0 else BELOW), strength(value, end))
        ax.add_patch(Rectangle((x - 0.4, y - 0.4), len(said) + 0.8, 0.8, color=colour, linewidth=0))
        _write(ax, x, y, said)
        x += len(said) + 1.6


def _write(ax: Axes, x: float, y: float, said: str, weight: str = "normal") -> None:
    ax.text(x, y, literal(said), fontsize=8, family="monospace", va="center", weight=weight)


def _short(said: str, longest: int = LONGEST) -> str:
    longest = max(longest, LONGEST)
    return said if len(said) <= longest else said[: longest - 1] + "…"
