"""Scores of heads: histograms, bars, lines and scatters on fixed bounds."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from xarray import DataArray

from analyses.labelled import head_coords
from analyses.plots.canvas import (
    CONTROL,
    LAYERS,
    TRAINED,
    Values,
    as_result,
    axes_of,
    bounds_of,
    label_of,
    padded,
)


def histogram(
    results: Values | Sequence[Values],
    ax: Axes | None = None,
    title: str = "",
    *,
    names: Sequence[str] = (),
) -> Axes:
    """The number of heads in each of ten bins from bound to bound, for one result or two; a colour
    for each result."""
    ax = axes_of(ax)
    shown = [as_result(one) for one in _several(results)]
    bins = np.linspace(*bounds_of(shown[0]), 11)
    values = [result.values.ravel() for result in shown]
    ax.hist(values, bins=bins.tolist(), label=list(names) or None,
            color=[TRAINED, CONTROL][: len(values)])  # fmt: skip
    ax.set(xlabel=label_of(shown[0]), ylabel="heads", title=title)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    if names:
        ax.legend(frameon=False)
    return ax


def bars(
    result: Values, ax: Axes | None = None, title: str = "", *, control: Values | None = None
) -> Axes:
    """A score of each head (layer, head) on its bounds, as bars in the colour of the layer. Rings
    are the control. A dashed line is chance, if attrs["chance"] has it."""
    ax, result = axes_of(ax, (9.0, 3.2)), as_result(result, "layer", "head")
    if "label" not in result.coords:
        result = result.assign_coords(head_coords(*result.shape))
    labels, values = result.label.values.ravel(), result.values.ravel()
    at = np.arange(len(values))
    for layer in range(result.sizes["layer"]):
        ours = np.repeat(result.layer.values, result.sizes["head"]) == layer
        ax.bar(at[ours], values[ours], color=LAYERS[layer % 4], label=f"layer {layer}")
    if control is not None:
        rings = as_result(control, "layer", "head").values.ravel()
        ax.plot(at, rings, "o", mfc="white", mec="0.3", ms=5, label="at initialisation")
    if "chance" in result.attrs:
        chance = float(result.attrs["chance"])
        ax.axhline(chance, color="0.3", ls="--", lw=0.8, label=f"chance: {chance:.2g}")
    ax.set_xticks(at, labels, rotation=90, fontsize=8)
    ax.set(
        ylim=result.attrs.get("bounds"),
        ylabel=textwrap.fill(label_of(result), 40),
        title=title,
        xlim=(-0.7, len(at) - 0.3),
    )
    ax.legend(frameon=False, ncols=4, fontsize=8)
    return ax


def paired_bars(
    values: Sequence[Float[np.ndarray, " bar"]],
    ax: Axes | None = None,
    title: str = "",
    *,
    labels: Sequence[str],
    names: Sequence[str],
    notes: Sequence[str] = (),
) -> Axes:
    """Signed numbers as groups of bars, with the numbers on top: first the result, then its
    control. Each group has a label and a note below it, each colour has a name."""
    ax = axes_of(ax, (1.6 + 1.5 * len(labels), 3.6))
    at, width = np.arange(len(labels)), 0.8 / len(values)
    for i, (row, name) in enumerate(zip(values, names, strict=True)):
        middle = at + (i - (len(values) - 1) / 2) * width
        drawn = ax.bar(middle, row, width, color=[TRAINED, CONTROL][i % 2], label=name)
        ax.bar_label(drawn, fmt="%.2f", fontsize=8, padding=2)
    notes = notes or [""] * len(labels)
    words = [f"{label}\n{note}".strip() for label, note in zip(labels, notes, strict=True)]
    ax.set_xticks(at, words, fontsize=9)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.margins(y=0.15)
    ax.set_title(title)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False)
    return ax


def lines(
    results: Values | Sequence[Values],
    ax: Axes | None = None,
    title: str = "",
    *,
    names: Sequence[str] = (),
) -> Axes:
    """The mean over the first dim against the second dim, with a band of two standard errors; a
    line for each result."""
    ax = axes_of(ax, (7.0, 3.6))
    for i, one in enumerate(_several(results)[:3]):
        result, colour = as_result(one, "example", "pos"), (TRAINED, CONTROL, "#D55E00")[i]
        over, along = (str(dim) for dim in result.dims)
        mean, error = result.mean(over), result.std(over) / np.sqrt(result.sizes[over])
        ax.plot(result[along], mean, color=colour, label=names[i] if names else None)
        ax.fill_between(
            result[along], mean - 2 * error, mean + 2 * error, color=colour, alpha=0.2, lw=0
        )
        ax.set(xlabel=along, ylabel=label_of(result))
    ax.set(title=title, ylim=(0, None))
    if names:
        ax.legend(frameon=False)
    return ax


def scatter(
    x: DataArray, y: DataArray, colour: DataArray, ax: Axes | None = None, title: str = ""
) -> Axes:
    """A point with its label for each head: `x` and `y` are scores on their bounds, and `colour` is
    a third score, from 0 to 1."""
    ax = axes_of(ax, (5.4, 4.6))
    across, up, high = x.values.ravel(), y.values.ravel(), x.attrs["bounds"][1]
    points = ax.scatter(
        across, up, c=colour.values.ravel(),
        cmap="viridis_r", vmin=0.0, vmax=1.0, s=42, edgecolor="0.2", lw=0.6,
    )  # fmt: skip
    placed: list[tuple[float, float]] = []
    for at, name in zip(zip(across, up, strict=True), x.label.values.ravel(), strict=True):
        close = sum(abs(at[0] - other[0]) + abs(at[1] - other[1]) < 0.1 for other in placed)
        side = -1 if at[0] > high - 0.2 else 1  # names of points that lie together are stacked
        ax.annotate(
            str(name), at, xytext=(side * 6, 4 - 10 * close), textcoords="offset points",
            fontsize=8, ha="left" if side > 0 else "right",
        )  # fmt: skip
        placed.append(at)
    for line, bound in ((ax.axvline, x.attrs["bounds"]), (ax.axhline, y.attrs["bounds"])):
        if bound[0] < 0:
            line(0, color="0.7", lw=0.8, zorder=0)
    ax.set(xlim=padded(x), ylim=padded(y), xlabel=label_of(x), ylabel=label_of(y), title=title)
    if ax.figure is not None:
        ax.figure.colorbar(points, ax=ax, label=label_of(colour))
    return ax


def shares(
    share: DataArray,
    ax: Axes | None = None,
    title: str = "",
    *,
    error: DataArray,
    notes: Sequence[str],
    colours: Mapping[str, str],
) -> Axes:
    """Shares (component, pattern) with their errors on fixed bounds: a row of dots for each
    component, a colour for each pattern, a note at the right. A share outside of the bounds is a
    triangle at the edge. NaN is left out."""
    ax = axes_of(ax, (6.4, 1.2 + 0.34 * share.sizes["component"]))
    low, high = share.attrs["bounds"]
    rows = np.arange(share.sizes["component"])
    for i, (name, colour) in enumerate(colours.items()):
        values, errors = share.sel(pattern=name).values, error.sel(pattern=name).values
        at, within = rows + 0.13 * (i - (len(colours) - 1) / 2), np.clip(values, low, high)
        inside = values == within
        ax.errorbar(values[inside], at[inside], xerr=errors[inside], fmt="o", ms=5, lw=1.2,
                    color=colour, label=name)  # fmt: skip
        for side, marker in ((values < low, "<"), (values > high, ">")):
            ax.plot(within[side], at[side], marker, ms=6, color=colour)
    for row, note in zip(rows, notes, strict=True):
        ax.annotate(note, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
    for line in (0, 1):
        ax.axvline(line, color="0.6", lw=0.8, zorder=0)
    ax.set_yticks(rows, share.component.values.tolist(), fontsize=9)
    ax.set(xlim=(low - 0.08, high + 0.08), ylim=(len(rows) - 0.5, -0.5), title=title,
           xlabel=label_of(share))  # fmt: skip
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _several(results: Values | Sequence[Values]) -> Sequence[Values]:
    return [results] if isinstance(results, DataArray | Tensor | np.ndarray) else results
