"""Composition scores as heatmaps and as wires between heads."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from xarray import DataArray

from analyses.plots.canvas import axes_of, grid, label_of

VIA_COLOURS = {"Q": "#0072B2", "K": "#D55E00", "V": "#009E73"}
FEW = 24
"Up to this number of heads, heads have names and scores have numbers."


def composition(result: DataArray) -> np.ndarray:
    """Heatmaps of `analyses.head_composition.over_chance`, writers by readers, one for each of Q, K
    and V, on one scale centred on chance. A cell is blank where a head cannot read.

    Random models reach scores up to attrs["quantile"]; cells up to this score are pale and hatched.
    The scale goes at least to half the chance level, so that noise is pale. ValueError unless
    chance is subtracted from the scores.
    """
    shown, limit = _readable(result)
    rows, columns = shown.sizes["writer"], shown.sizes["reader"]
    width, height = (min(max(0.55 * n + 0.6, 2.2), 9.0) for n in (columns, rows))
    figure, axes = grid(1, shown.sizes["via"], (width, height))
    mesh = None
    for ax, panel in zip(axes[0], shown, strict=True):
        cells = np.ma.masked_invalid(panel.values)
        lines = {"edgecolor": "0.85", "lw": 0.5} if max(rows, columns) <= FEW else {}
        mesh = ax.pcolor(cells, cmap="RdBu_r", vmin=-limit, vmax=limit, **lines)
        dull = np.ma.masked_where(_finding(panel) | np.isnan(panel.values), panel.values)
        ax.pcolor(dull, cmap=ListedColormap(["white"]), alpha=0.55, zorder=2)
        ax.pcolor(dull, hatch="////", facecolor="none", edgecolor="0.7", lw=0, zorder=3)
        _head_ticks(ax, panel)
        if max(rows, columns) <= FEW:
            _write_scores(ax, panel, limit)
        ax.set(title=f"via {panel.via.item()}", xlabel="reader", aspect="equal")
    axes[0, 0].set_ylabel("writer")
    if mesh is not None:
        null = (
            "heads turned at random" if result.attrs.get("null") == "rotated" else "random models"
        )
        reached = f"{null} reach it" if "quantile" in result.attrs else "not above chance"
        words = f"{label_of(result)}\n(hatched: {reached})"
        figure.colorbar(mesh, ax=axes, label=words, fraction=0.03)
    return axes


def wiring(
    result: DataArray,
    ax: Axes | None = None,
    title: str = "",
    *,
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """`analyses.head_composition.over_chance` as wires from writers to readers, with a column of
    heads for each layer. A wire is wider for a score further above chance. Scores that random
    models reach have no wire.

    Q, K and V have a colour each. `colours` has the colours of heads by label. ValueError unless
    chance is subtracted from the scores.
    """
    shown, limit = _readable(result)
    places = {**_places(result, "writer"), **_places(result, "reader")}
    ax = axes_of(ax, (5.6, 4.4))
    for number, panel in enumerate(shown):
        via, shift = str(panel.via.item()), 0.07 * (number - 1)  # wires of a pair side by side
        for i, j in np.argwhere(_finding(panel)):
            ends = [places[str(panel[end].values[k])] for end, k in (("writer", i), ("reader", j))]
            (x0, y0), (x1, y1) = ends
            share = float(panel.values[i, j]) / limit
            ax.plot([x0, x1], [y0 + shift, y1 + shift], color=VIA_COLOURS[via],
                    lw=6 * share, alpha=0.2 + 0.7 * share, solid_capstyle="butt")  # fmt: skip
    for label, (x, y) in places.items():
        colour = (colours or {}).get(label, "0.2")
        ax.annotate(label, (x, y), ha="center", va="center", fontsize=8, color=colour, zorder=4,
                    bbox={"boxstyle": "round", "fc": "white", "ec": colour})  # fmt: skip
    handles = [Line2D([], [], color=VIA_COLOURS[via], lw=4, label=f"via {via}") for via in "QKV"]
    widest = f"widest: {limit:.2f} above chance"
    ax.legend(handles=[*handles, Line2D([], [], color="0.4", lw=6, label=widest)], frameon=False,
              ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0.0), fontsize=8)  # fmt: skip
    xs, ys = zip(*places.values(), strict=True)
    ax.set(xlim=(min(xs) - 0.25, max(xs) + 0.25), ylim=(max(ys) + 0.6, min(ys) - 0.6), title=title)
    ax.axis("off")
    return ax


def _readable(result: DataArray) -> tuple[DataArray, float]:
    """The scores of heads that write or read, and the limit of the scale."""
    if result.dims != ("via", "writer", "reader") or result.attrs.get("bounds", (-1,))[0] >= 0:
        raise ValueError(
            "wanted composition less chance (via, writer, reader), see "
            "head_composition.over_chance; got "
            f"{result.attrs.get('long_name', result.name)} {result.dims}"
        )
    shown = result.dropna("writer", how="all").dropna("reader", how="all")
    return shown, max(float(abs(shown).max()), result.attrs["chance"] / 2)


def _finding(panel: DataArray) -> np.ndarray:
    """True for scores that random models do not reach, or, if this is not known, for scores above
    chance."""
    return panel.values > panel.attrs.get("quantile", 0.0)


def _places(result: DataArray, end: str) -> dict[str, tuple[float, float]]:
    labels, layers, heads = (result[name].values for name in (end, f"{end}_layer", f"{end}_head"))
    places = zip(labels, layers, heads, strict=True)
    return {str(label): (float(layer), float(head)) for label, layer, head in places}


def _head_ticks(ax: Axes, panel: DataArray) -> None:
    """Write the names of heads, or of layers if there are many heads."""
    for axis, end in ((ax.xaxis, "reader"), (ax.yaxis, "writer")):
        labels, layers = panel[end].values, panel[f"{end}_layer"].values
        if len(labels) <= FEW:
            axis.set_ticks(np.arange(len(labels)) + 0.5, labels, fontsize=8)
        else:
            found, first = np.unique(layers, return_index=True)
            axis.set_ticks(first, [f"L{layer}" for layer in found], fontsize=8)
    if 6 < panel.sizes["reader"] <= FEW:
        ax.tick_params(axis="x", rotation=90)
    ax.invert_yaxis()


def _write_scores(ax: Axes, panel: DataArray, limit: float) -> None:
    finding = _finding(panel)
    for (i, j), score in np.ndenumerate(panel.values):
        if finding[i, j] and score >= 0.005:
            colour = "white" if score > 0.65 * limit else "0.1"
            ax.annotate(f"{score:.2f}".lstrip("0"), (j + 0.5, i + 0.5), ha="center", va="center",
                        fontsize=7, color=colour, zorder=4)  # fmt: skip
