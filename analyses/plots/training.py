"""Training histories: lines over training, the window of the phase change, heatmaps over training
and token index, paths of token losses, heads as points."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, TwoSlopeNorm
from matplotlib.ticker import NullLocator
from xarray import DataArray

from analyses.plots.canvas import axes_of, label_of

WINDOW = "#E69F00"
LAYERS = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7")
"A colour for each layer."
RUNS = ("#D55E00", "#CC79A7", "#009E73", "#0072B2", "#333333", "#56B4E9")
"A colour for each run, in their order."


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
    colours given or that of its layer. Bounded results keep their bounds.

    ValueError for names that are not one for each line; the name of a single line may stand alone.
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
    """The phase change as an orange band, from M tokens to M tokens."""
    ax.axvspan(start, end, color=WINDOW, alpha=0.25, lw=0, zorder=0)
    return ax


def loss_map(
    result: DataArray,
    limits: tuple[float, float],
    ax: Axes | None = None,
    title: str = "",
    *,
    bar: bool = True,
) -> Axes:
    """A result (step, index) as colours over tokens seen and the token index, on a log scale;
    signed ones diverge from 0, others go from limit to limit. What it shows, a caption says; of
    several maps on one scale, only the last needs its `bar`."""
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


def path(
    points: DataArray,
    marked: tuple[int, int] | None = None,
    ax: Axes | None = None,
    title: str = "",
    *,
    colour: str = "0.35",
) -> Axes:
    """A run's way (step, component) through its two principal directions; what lies between the two
    steps that are `marked` is orange, and they are called A and B."""
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


def heads(
    x: DataArray,
    y: DataArray,
    colours: Sequence[str],
    ax: Axes | None = None,
    *,
    labels: Sequence[str] = (),
    hollow: bool = False,
    name: str = "",
) -> Axes:
    """One point per head, each in its colour; hollow ones are a control. `labels` that are empty
    are left out."""
    ax = axes_of(ax, (5.2, 4.2))
    across, up = x.values.ravel(), y.values.ravel()
    face = "none" if hollow else list(colours)
    ax.scatter(across, up, s=34, facecolors=face, edgecolors=list(colours), lw=1.0,
               label=name or None, zorder=2)  # fmt: skip
    named = [(at, label) for at, label in zip(zip(across, up, strict=True), labels, strict=False)
             if label]  # fmt: skip
    for i, (at, label) in enumerate(named):  # in turn above and below: some lie close together
        ax.annotate(label, at, xytext=(5, (3, -8)[i % 2]), textcoords="offset points", fontsize=7)
    ax.set(xlabel=label_of(x), ylabel=label_of(y))
    ax.spines[["top", "right"]].set_visible(False)
    return ax
