"""Matrices: any 2-D result, attention patterns, and eigenvalues in the complex plane."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from xarray import DataArray

from analyses.plots.canvas import (
    ROLE_COLOURS,
    TRAINED,
    Values,
    as_result,
    axes_of,
    bounds_of,
    grid,
    label_of,
    literal,
    show_token,
)

PANEL, WIDEST = 1.6, 9.0
"The least size of a panel of attention, and the largest width of a row of panels, in inches."
FRAME, LINE, LETTER = 0.3, 0.095, 0.065
"Inches: the frame of a panel, the height of a token's label, and the width of one letter of it."


def heatmap(result: Values, ax: Axes | None = None, title: str = "", *, bar: bool = True) -> Axes:
    """A 2-D result as an image: its first dim gives the rows, its second the columns. The colours
    go from 0 to the upper bound; if the lower bound is negative, 0 is in the middle. Without bounds
    the values give the limits."""
    ax, result = axes_of(ax), as_result(result, "row", "column")
    low, high = bounds_of(result)
    signed = low < 0
    limit = max(abs(low), abs(high))
    image = ax.imshow(
        result.values,
        aspect="auto",
        cmap="RdBu_r" if signed else "Blues",
        vmin=-limit if signed else low,
        vmax=limit if signed else high,
        interpolation="nearest",
    )
    row, column = (str(dim) for dim in result.dims)
    ax.set(xlabel=column.replace("_", " "), ylabel=row.replace("_", " "), title=title)
    for axis, dim in ((ax.xaxis, column), (ax.yaxis, row)):
        if dim in result.coords and result.sizes[dim] <= 40:
            axis.set_ticks(range(result.sizes[dim]), [_tick(v) for v in result[dim].values])
    if sum(len(tick.get_text()) for tick in ax.get_xticklabels()) > 30:
        ax.tick_params(axis="x", rotation=90)
    if bar and ax.figure is not None:
        ax.figure.colorbar(image, ax=ax, label=label_of(result), fraction=0.046)
    return ax


def attention(
    pattern: Values,
    tokens: Sequence[str] | None = None,
    *,
    titles: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
    columns: int = 8,
) -> np.ndarray:
    """Patterns [head dest src] in [0, 1], one panel for each head, all on one scale.

    The tokens stand along the axes of the first panel of the last row. Panels grow with the number
    of tokens. If there is still no room, only every second, third, ... token is written. ValueError
    for another shape, and unless there is one token for each source.
    """
    values = as_result(pattern).values
    if values.ndim != 3:
        raise ValueError(f"wanted a pattern [head dest src], got {list(values.shape)}")
    words = None if tokens is None else [literal(show_token(token)) for token in tokens]
    if words is not None and len(words) != values.shape[2]:
        raise ValueError(f"{len(words)} tokens for a pattern of {values.shape[2]} sources")
    heads = len(values)
    columns = min(columns, heads)
    rows = -(-heads // columns)
    side = max(PANEL, min(FRAME + LINE * len(words or ()), WIDEST / columns))
    figure, axes = grid(rows, columns, (side, side))
    image = None
    for i, ax in enumerate(axes.flat):
        if i >= heads:
            ax.set_visible(False)
            continue
        image = ax.imshow(values[i], cmap="Blues", vmin=0.0, vmax=1.0, interpolation="nearest")
        colour = colours[i] if colours else "black"
        ax.set_title(titles[i] if titles else f"head {i}", color=colour, fontsize=9)
        ax.set(xticks=[], yticks=[])
        for spine in ax.spines.values():
            spine.set_color(colour)
    corner = axes[-1, 0]
    if words:
        _write_tokens(corner, words, every=math.ceil(LINE * len(words) / (side - FRAME)))
    corner.set(xlabel="source", ylabel="destination")
    if image is not None:
        figure.colorbar(image, ax=axes, label="attention", fraction=0.02)
    return axes


def _write_tokens(ax: Axes, words: Sequence[str], every: int) -> None:
    """Write each `every`-th word along both axes; the destinations are the last words. The figure
    grows by the length of the longest word."""
    dests = int(ax.get_ylim()[0] + 0.5)
    shown = slice(None, None, every)
    at = range(len(words))
    ax.set_xticks(at[shown], words[shown], rotation=90, fontsize=6)
    ax.set_yticks(range(dests)[shown], words[-dests:][shown], fontsize=6)
    figure = ax.get_figure(root=True)
    if figure is not None:
        width, height = figure.get_size_inches()
        more = LETTER * max(map(len, words[shown]))
        figure.set_size_inches(width + more, height + more)


def role_legend(axes: np.ndarray, roles: DataArray) -> None:
    """A legend of the colours of roles, below the panels of `attention`."""
    seen = sorted({str(role) for role in roles.values.ravel()})
    handles = [
        Line2D([], [], color=ROLE_COLOURS[role], lw=4, label="no role" if role == "-" else role)
        for role in seen
    ]
    figure = axes.flat[0].figure
    figure.legend(handles=handles, loc="outside lower center", ncols=len(seen), frameon=False)


def eigenvalues(
    result: Values, ax: Axes | None = None, title: str = "", *, colour: str = TRAINED
) -> Axes:
    """The eigenvalues of one matrix in the complex plane. The radius is the logarithm of the size
    over the largest size, over three decades, so that small eigenvalues are visible too.

    Without a title, an eigenvalue array of `copying.eigenvalues` gives the name of its head.
    ValueError for the eigenvalues of several matrices.
    """
    values = as_result(result).values
    if values.ndim != 1:
        raise ValueError(
            f"wanted the eigenvalues of one matrix, got {list(values.shape)}: draw each head into "
            f"its own Axes of plots.grid"
        )
    ax = axes_of(ax)
    if not title and isinstance(result, DataArray) and "label" in result.coords:
        title = str(result.label.item())
    share = np.abs(values) / max(np.abs(values).max(initial=0), 1e-30)
    radius = np.clip(1 + np.log10(np.maximum(share, 1e-30)) / 3, 0, 1)
    turned = radius * np.exp(1j * np.angle(values))
    ax.axvspan(0, 1.15, color="#0072B2", alpha=0.07, lw=0)
    ax.axhline(0, color="0.8", lw=0.6, zorder=0)
    ax.axvline(0, color="0.5", lw=0.8, zorder=0)
    ax.scatter(turned.real, turned.imag, s=6, color=colour, lw=0)
    ax.set(xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[], aspect="equal")
    ax.set_title(title, fontsize=9)
    return ax


def _tick(value: object) -> str:
    """The words of a tick. Whitespace at the ends of a token is made visible."""
    words = str(value)
    return literal(words if words == words.strip() else show_token(words))
