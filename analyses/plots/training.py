"""Plots of training: lines, the window of the phase change, maps of the loss by token index, the
trajectory of token losses, and heads as points."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.ticker import NullLocator
from xarray import DataArray

from analyses.plots.canvas import LAYERS, axes_of, label_of

WINDOW = "#E69F00"
RUNS = ("#D55E00", "#CC79A7", "#009E73", "#0072B2", "#333333", "#56B4E9")
"A colour for each run, in order."


def over_training(
    result: DataArray,
    ax: Axes | None = None,
    title: str = "",
    *,
    colours: Sequence[str] = (),
    names: str | Sequence[str] | np.ndarray = (),
    width: float = 1.2,
) -> Axes:
    """A result (step, ...) against the tokens seen, in millions: a line for each entry, in the
    given colours or in the colour of its layer. A result with bounds keeps them as limits.

    ValueError unless there is one name for each line, or none. One line may have its name as a
    text.
    """
    values = result.values.reshape(result.sizes["step"], -1)
    names = [names] if isinstance(names, str) else [str(name) for name in np.ravel(names)]
    if len(names) not in (0, values.shape[1]):
        raise ValueError(f"{len(names)} names for {values.shape[1]} lines: {names}")
    ax = axes_of(ax)
    if not colours:
        per = values.shape[1] // max(result.sizes.get("layer", 1), 1)
        colours = [LAYERS[i // max(per, 1) % len(LAYERS)] for i in range(values.shape[1])]
    for i, column in enumerate(values.T):
        name = names[i] if names else None
        ax.plot(result.tokens / 1e6, column, color=colours[i], label=name, lw=width)
    ax.set(xlabel="M tokens seen", ylabel=label_of(result), title=title)
    if "bounds" in result.attrs:
        ax.set_ylim(*result.attrs["bounds"])
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def window(ax: Axes, start: float, end: float) -> Axes:
    """The phase change as an orange band, from `start` to `end` in millions of tokens."""
    ax.axvspan(start, end, color=WINDOW, alpha=0.25, lw=0, zorder=0)
    return ax


def loss_map(
    result: DataArray,
    ax: Axes | None = None,
    title: str = "",
    *,
    limits: tuple[float, float],
    bar: bool = True,
) -> Axes:
    """A result (step, index) as colours over the tokens seen and the token index, on a log scale.
    The colours go from limit to limit; between limits of both signs, 0 is white. Without `bar`
    there is no colour bar."""
    ax = axes_of(ax)
    low, high = limits
    signed = low < 0 < high
    norm = TwoSlopeNorm(0, low, high) if signed else Normalize(low, high)
    shown = ax.pcolormesh(
        result.tokens / 1e6, result.index, result.transpose("index", "step").values,
        cmap="RdBu_r" if signed else "viridis_r", norm=norm, shading="nearest", rasterized=True,
    )  # fmt: skip
    ax.set(yscale="log", xlabel="M tokens seen", ylabel="token index", title=title)
    powers = 4 ** np.arange(0, np.log(result.index.values[-1]) / np.log(4) + 0.01).astype(int)
    ax.set_yticks(powers, [str(power) for power in powers])
    ax.yaxis.set_minor_locator(NullLocator())
    figure = ax.get_figure()
    if bar and figure is not None:
        figure.colorbar(shown, ax=ax, extend="both", aspect=30)
    return ax


def trajectory(
    points: DataArray,
    ax: Axes | None = None,
    title: str = "",
    *,
    marked: tuple[int, int] | None = None,
    colour: str = "0.35",
) -> Axes:
    """The trajectory of a run (step, component) in the plane of its two principal directions. The
    part between the two `marked` steps is orange, and its ends are called A and B."""
    ax = axes_of(ax)
    x, y = points.values.T
    ax.plot(x, y, color=colour, lw=1.0, marker=".", ms=2.5)
    ax.plot(x[-1], y[-1], "o", color=colour, ms=5)
    if marked:
        inside = (points.step.values >= marked[0]) & (points.step.values <= marked[1])
        ax.plot(x[inside], y[inside], color=WINDOW, lw=3.0)
        for name, at in zip("AB", np.flatnonzero(inside)[[0, -1]], strict=True):
            ax.annotate(name, (x[at], y[at]), xytext=(5, 3), textcoords="offset points",
                        weight="bold")  # fmt: skip
    shares = points.attrs["explained"]
    ax.set(xlabel=f"PC 1 ({shares[0]:.0%})", ylabel=f"PC 2 ({shares[1]:.0%})", title=title)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def head_points(
    x: DataArray,
    y: DataArray,
    ax: Axes | None = None,
    title: str = "",
    *,
    colours: Sequence[str],
    labels: Sequence[str] = (),
    hollow: bool = False,
    name: str = "",
) -> Axes:
    """A point for each head in its colour, at its scores `x` and `y`. The points of a control are
    `hollow`. Empty labels are not written. `name` stands in the legend."""
    ax = axes_of(ax, (5.2, 4.2))
    across, up = x.values.ravel(), y.values.ravel()
    face = "none" if hollow else list(colours)
    ax.scatter(across, up, s=34, facecolors=face, edgecolors=list(colours), lw=1.0,
               label=name or None, zorder=2)  # fmt: skip
    named = [(at, label) for at, label in zip(zip(across, up, strict=True), labels, strict=False)
             if label]  # fmt: skip
    for i, (at, label) in enumerate(named):  # labels above and below in turn, so that they fit
        ax.annotate(label, at, xytext=(5, (3, -8)[i % 2]), textcoords="offset points", fontsize=7)
    ax.set(xlabel=label_of(x), ylabel=label_of(y), title=title)
    ax.spines[["top", "right"]].set_visible(False)
    return ax
