"""DataArray -> matplotlib axes. Nothing is computed here but positions and colours.

Attention and scores keep the limits in `attrs["bounds"]`, signed quantities a diverging map centred
on 0. Every function draws into the Axes it is given, or makes one, and returns it.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox
from pandas import DataFrame
from torch import Tensor
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
    )


def grid(
    rows: int, columns: int, size: tuple[float, float] = (1.6, 1.6)
) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns small panels, and its [rows columns] array of Axes."""
    figsize = (size[0] * columns + 0.6, size[1] * rows + 0.6)
    return plt.subplots(rows, columns, figsize=figsize, squeeze=False, layout="constrained")


def heatmap(
    result: DataArray, ax: Axes | None = None, title: str = "", *, bar: bool = True
) -> Axes:
    """A 2-D result as an image: rows are its first dim, columns its second."""
    ax = _axes(ax)
    low, high = result.attrs.get("bounds", (float(result.min()), float(result.max())))
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
            axis.set_ticks(range(result.sizes[dim]), [str(v) for v in result[dim].values])
    if bar and ax.figure is not None:
        ax.figure.colorbar(image, ax=ax, label=_label(result), fraction=0.046)
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

    Up to 24 tokens are written along the axes of the first panel of the last row.
    """
    values = np.asarray(pattern.detach() if isinstance(pattern, Tensor) else pattern)
    if values.ndim != 3:
        raise ValueError(f"wanted a pattern [head dest src], got {list(values.shape)}")
    heads = len(values)
    columns = min(columns, heads)
    rows = -(-heads // columns)
    figure, axes = grid(rows, columns)
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
    if tokens is not None and len(tokens) <= 24:
        words = [show_token(token) for token in tokens]
        corner.set_xticks(range(len(words)), words, rotation=90, fontsize=6)
        corner.set_yticks(range(len(words)), words, fontsize=6)
    corner.set(xlabel="source", ylabel="destination")
    if image is not None:
        figure.colorbar(image, ax=axes, label="attention", fraction=0.02)
    return axes


def eigenvalues(
    result: DataArray | Tensor, ax: Axes | None = None, title: str = "", colour: str = TRAINED
) -> Axes:
    """Complex eigenvalues in the plane, as a share of the largest; the radius is logarithmic over
    three decades, so that the many small ones show beside the few large."""
    ax = _axes(ax)
    values = np.asarray(result.detach() if isinstance(result, Tensor) else result).ravel()
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


def histogram(
    results: Sequence[DataArray], names: Sequence[str], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Bounded scores of heads, counted in ten bins from bound to bound; a colour each result."""
    ax = _axes(ax)
    low, high = results[0].attrs["bounds"]
    bins = np.linspace(low, high, 11)
    values = [result.values.ravel() for result in results]
    ax.hist(values, bins=bins.tolist(), label=list(names), color=[TRAINED, CONTROL][: len(values)])
    ax.set(xlabel=_label(results[0]), ylabel="heads", title=title)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    return ax


def bars(
    result: DataArray, control: DataArray | None = None, ax: Axes | None = None, title: str = ""
) -> Axes:
    """A score per head (layer, head) in [0, 1] as bars coloured by layer; the control as rings and
    chance as a dashed line."""
    ax = _axes(ax, (9.0, 3.2))
    labels, values = result.label.values.ravel(), result.values.ravel()
    at = np.arange(len(values))
    palette = ["#56B4E9", "#D55E00", "#009E73", "#CC79A7"]
    for layer in range(result.sizes["layer"]):
        ours = np.repeat(result.layer.values, result.sizes["head"]) == layer
        ax.bar(at[ours], values[ours], color=palette[layer % 4], label=f"layer {layer}")
    if control is not None:
        ax.plot(
            at, control.values.ravel(), "o", mfc="white", mec="0.3", ms=5, label="at initialisation"
        )
    ax.axhline(result.attrs["chance"], color="0.3", ls="--", lw=0.8, label="uniform attention")
    ax.set_xticks(at, labels, rotation=90, fontsize=8)
    ax.set(
        ylim=result.attrs["bounds"], ylabel=_label(result), title=title, xlim=(-0.7, len(at) - 0.3)
    )
    ax.legend(frameon=False, ncols=4, fontsize=8)
    return ax


def lines(
    results: Sequence[DataArray], names: Sequence[str], ax: Axes | None = None, title: str = ""
) -> Axes:
    """Mean over the first dim against the second, with a band of two standard errors."""
    ax = _axes(ax, (7.0, 3.6))
    for result, name, colour in zip(results, names, (TRAINED, CONTROL, "#D55E00"), strict=False):
        over, along = (str(dim) for dim in result.dims)
        mean, error = result.mean(over), result.std(over) / np.sqrt(result.sizes[over])
        ax.plot(result[along], mean, color=colour, label=name)
        ax.fill_between(
            result[along], mean - 2 * error, mean + 2 * error, color=colour, alpha=0.2, lw=0
        )
        ax.set(xlabel=along, ylabel=_label(result))
    ax.set(title=title, ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def scatter(
    x: DataArray, y: DataArray, colour: DataArray, ax: Axes | None = None, title: str = ""
) -> Axes:
    """One point per head: `x` and `y` scores on their bounds, coloured by a third from 0 to 1, and
    labelled."""
    ax = _axes(ax, (5.4, 4.6))
    points = ax.scatter(
        x.values.ravel(), y.values.ravel(), c=colour.values.ravel(),
        cmap="viridis_r", vmin=0.0, vmax=1.0, s=42, edgecolor="0.2", lw=0.6,
    )  # fmt: skip
    placed: list[tuple[float, float]] = []
    high = x.attrs["bounds"][1]
    for at, name in zip(
        zip(x.values.ravel(), y.values.ravel(), strict=True), x.label.values.ravel(), strict=True
    ):
        close = sum(abs(at[0] - other[0]) + abs(at[1] - other[1]) < 0.1 for other in placed)
        side = -1 if at[0] > high - 0.2 else 1  # stack the names of points that lie together
        ax.annotate(
            str(name), at, xytext=(side * 6, 4 - 10 * close), textcoords="offset points",
            fontsize=8, ha="left" if side > 0 else "right",
        )  # fmt: skip
        placed.append(at)
    for line, bound in ((ax.axvline, x.attrs["bounds"]), (ax.axhline, y.attrs["bounds"])):
        if bound[0] < 0:
            line(0, color="0.7", lw=0.8, zorder=0)
    ax.set(xlim=_padded(x), ylim=_padded(y), xlabel=_label(x), ylabel=_label(y), title=title)
    if ax.figure is not None:
        ax.figure.colorbar(points, ax=ax, label=_label(colour))
    return ax


def skip_trigrams(table: DataFrame) -> Figure:
    """A table of `analyses.skip_trigrams` as a figure, its out tokens shaded by `own_score`."""
    figure, ax = plt.subplots(figsize=(10.5, 0.3 * len(table) + 0.5), layout="constrained")
    ax.axis("off")
    heading = ["head", "source", "destination tokens (top QK)", "out tokens (top OV)"]
    cells = [
        [head, show_token(source), _row(destinations), _row(outs)]
        for head, source, destinations, outs in zip(
            table["head"], table["source"], table["destinations"], table["outs"], strict=True
        )
    ]
    shown = ax.table(
        cells,
        colLabels=heading,
        colWidths=[0.06, 0.14, 0.4, 0.4],
        cellLoc="left",
        bbox=Bbox.unit(),
    )
    shown.auto_set_font_size(False)
    shown.set_fontsize(9)
    for (row, column), cell in shown.get_celld().items():
        cell.set_edgecolor("0.8")
        cell.PAD = 0.02
        if row > 0 and column == 3:
            strength = min(max(float(table["own_score"].iloc[row - 1]) / 20, 0.0), 1.0)
            cell.set_facecolor(plt.get_cmap("Blues")(0.6 * strength))
    return figure


def _row(pairs: list[tuple[str, float]]) -> str:
    return "   ".join(show_token(token) for token, _ in pairs)


def _axes(ax: Axes | None, size: tuple[float, float] = (5.0, 4.0)) -> Axes:
    return ax if ax is not None else plt.subplots(figsize=size, layout="constrained")[1]


def _label(result: DataArray) -> str:
    words = str(result.attrs.get("long_name", result.name or ""))
    return f"{words} ({result.attrs['units']})" if "units" in result.attrs else words


def _padded(result: DataArray) -> tuple[float, float]:
    low, high = result.attrs["bounds"]
    return low - 0.05 * (high - low), high + 0.08 * (high - low)
