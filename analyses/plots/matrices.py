"""Matrices: any 2-D result, attention patterns, and eigenvalues in the plane."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from torch import Tensor
from xarray import DataArray

from analyses.labelled import to_numpy
from analyses.plots.canvas import (
    ROLE_COLOURS,
    TRAINED,
    axes_of,
    grid,
    label_of,
    literal,
    show_token,
)

PANEL, WIDEST = 1.6, 9.0
"Inches of a panel of attention, and of a row of panels that grow so that every token has room."
FRAME, LINE, LETTER = 0.3, 0.095, 0.065
"Inches around what is drawn in a panel; of a token's label across and, for each letter, along."


def heatmap(
    result: DataArray, ax: Axes | None = None, title: str = "", *, bar: bool = True
) -> Axes:
    """A 2-D result as an image: rows are its first dim, columns its second. Where it has no bounds
    the scale begins at 0, or is centred on it if some values are below."""
    ax = axes_of(ax)
    low, high = result.attrs.get("bounds", (min(float(result.min()), 0.0), float(result.max())))
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
    pattern: Tensor | DataArray,
    tokens: Sequence[str] | None = None,
    *,
    titles: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
    columns: int = 8,
) -> np.ndarray:
    """Patterns [head dest src] in [0, 1] as small multiples, one panel per head, all on one scale.

    The tokens stand along the axes of the first panel of the last row. Panels grow so that all have
    room; where they cannot, every second, third, ... token is written. ValueError for another shape
    and for tokens that are not one for each source.
    """
    values = to_numpy(pattern) if isinstance(pattern, Tensor) else np.asarray(pattern)
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
    """Each `every`-th of the words along both axes, in a figure that grows by the longest of them;
    the last words are the destinations."""
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
    """What the colours of frames and titles stand for, below the panels of `attention`."""
    seen = sorted({str(role) for role in roles.values.ravel()})
    handles = [
        Line2D([], [], color=ROLE_COLOURS[role], lw=4, label="no role" if role == "-" else role)
        for role in seen
    ]
    figure = axes.flat[0].figure
    figure.legend(handles=handles, loc="outside lower center", ncols=len(seen), frameon=False)


def eigenvalues(
    result: DataArray | Tensor, ax: Axes | None = None, title: str = "", colour: str = TRAINED
) -> Axes:
    """Complex eigenvalues of one matrix in the plane, as a share of the largest; the radius is
    logarithmic over three decades, so that the many small ones show beside the few large.

    A head of `copying.eigenvalues` names itself, where there is no title. ValueError for those of
    many matrices.
    """
    values = to_numpy(result) if isinstance(result, Tensor) else np.asarray(result)
    if values.ndim != 1:
        raise ValueError(f"wanted the eigenvalues of one matrix, got {list(values.shape)}: draw "
                         f"each head into its own Axes of plots.grid")  # fmt: skip
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
    """The words of a tick; a token that begins or ends with whitespace shows it."""
    words = str(value)
    return literal(words if words == words.strip() else show_token(words))
