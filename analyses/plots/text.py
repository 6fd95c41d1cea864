"""Text coloured token by token."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from analyses.plots.canvas import Values, as_result, axes_of, bounds_of, literal, show_token

WIDE = 112
"The number of letters in a line."


def text(
    values: Values,
    tokens: Sequence[str],
    ax: Axes | None = None,
    title: str = "",
    *,
    framed: Sequence[int] = (),
) -> Axes:
    """Tokens as text, each on the colour of its value (token). Colours go from white at 0 to blue
    at the upper bound; if the lower bound is negative, from red to blue with white at 0. Without
    bounds the values give the limits. Tokens whose numbers are in `framed` have a frame.

    ValueError unless there is one value for each token.
    """
    values = as_result(values, "token")
    if len(tokens) != values.size:
        raise ValueError(f"wanted a value for each of {len(tokens)} tokens, got {values.size}")
    low, high = bounds_of(values)
    colours = colormaps["RdBu" if low < 0 else "Blues"]
    scale = Normalize(-max(-low, high) if low < 0 else 0.0, max(-low, high))
    lines = _lines([show_token(token) for token in tokens])
    ax = axes_of(ax, (9.0, 0.26 * len(lines) + 0.5))
    for row, line in enumerate(lines):
        for column, index, word in line:
            share = scale(float(np.nan_to_num(values.values[index])))
            r, g, b, _ = colours(share)
            ink = "white" if 0.299 * r + 0.587 * g + 0.114 * b < 0.5 else "0.1"
            edge = "#D55E00" if index in framed else "none"
            ax.add_patch(
                Rectangle((column, row - 0.45), len(word), 0.9, fc=(r, g, b), ec=edge, lw=1.2,
                          zorder=2 if edge != "none" else 1)
            )  # fmt: skip
            ax.text(column + len(word) / 2, row, literal(word), family="monospace", fontsize=8.5,
                    color=ink, ha="center", va="center_baseline", zorder=3)  # fmt: skip
    ax.set(xlim=(-0.5, WIDE + 0.5), ylim=(len(lines) - 0.4, -0.6))
    ax.set_title(title, fontsize=9, loc="left")
    ax.axis("off")
    return ax


def _lines(words: Sequence[str]) -> list[list[tuple[int, int, str]]]:
    """Lines of (column, index, word), each within WIDE letters."""
    lines: list[list[tuple[int, int, str]]] = [[]]
    column = 0
    for index, word in enumerate(words):
        if column + len(word) > WIDE and lines[-1]:
            lines.append([])
            column = 0
        lines[-1].append((column, index, word))
        column += len(word)
    return lines
