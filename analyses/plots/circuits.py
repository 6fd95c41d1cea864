"""Circuits as graphs, and estimated effects against exact effects."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from xarray import DataArray, Dataset

from analyses.plots.canvas import TRAINED, axes_of, label_of
from analyses.plots.composition import VIA_COLOURS

LINES = ("#000000", "#E69F00", "#56B4E9", "#0072B2", "#D55E00")


def circuit(kept: DataArray, ax: Axes | None = None, title: str = "") -> Axes:
    """A circuit (sender, receiver) of `analyses.discovery` as a graph from the embedding at the
    bottom to the logits at the top, a row for the heads of each layer and for each MLP.

    An edge has the colour of the input that it leads to: queries, keys, values, or the stream.
    Components without an edge are pale.
    """
    rows = _rows(kept)
    places = {name: ((i + 0.5) / len(row), y) for y, row in enumerate(rows)
              for i, name in enumerate(row)}  # fmt: skip
    ax = axes_of(ax, (1.0 + 0.9 * max(len(row) for row in rows), 0.9 * len(rows) + 0.6))
    used = set()
    for s, r in np.argwhere(kept.values):
        sender, receiver = str(kept.sender.values[s]), str(kept.receiver.values[r])
        owner, _, what = receiver.partition(".")
        used |= {sender, owner}
        (x, y), (to_x, to_y) = places[sender], places[owner]
        shift = {"Q": -0.02, "V": 0.02}.get(what, 0.0)
        ax.plot([x, to_x + shift], [y, to_y], color=VIA_COLOURS.get(what, "0.3"), lw=1.2, zorder=1)
    for name, (x, y) in places.items():
        colour = "0.1" if name in used else "0.75"
        box = {"boxstyle": "round", "fc": "white", "ec": colour}
        ax.text(x, y, name, ha="center", va="center", fontsize=8, color=colour, bbox=box)
    lines = [Line2D([], [], color=colour) for colour in (*VIA_COLOURS.values(), "0.3")]
    names = ["queries", "keys", "values", "the stream"]
    ax.legend(lines, names, frameon=False, fontsize=8, ncols=4, loc="lower center",
              bbox_to_anchor=(0.5, -0.12))  # fmt: skip
    ax.set(xlim=(0, 1), ylim=(-0.4, len(rows) - 0.6), title=title)
    ax.axis("off")
    return ax


def agreement(
    truth: DataArray, estimate: DataArray, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Estimates against true values of the same shape, a point for each, with the line on which
    they are equal and the correlation r. NaN is left out."""
    ax = axes_of(ax, (3.4, 3.4))
    x, y = truth.values.ravel(), estimate.values.ravel()
    there = np.isfinite(x) & np.isfinite(y)
    x, y = x[there], y[there]
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    ax.plot([low, high], [low, high], color="0.7", lw=0.8, zorder=0)
    ax.scatter(x, y, s=12, color=TRAINED, alpha=0.6, lw=0)
    r = np.corrcoef(x, y)[0, 1]
    ax.set(xlabel=label_of(truth), ylabel=label_of(estimate), title=f"{title} (r = {r:.2f})")
    return ax


def sizes(result: DataArray, ax: Axes | None = None, title: str = "") -> Axes:
    """Faithfulness (score, edges) of `discovery.faithfulness_by_edges`: a line for each
    method of scoring."""
    ax = axes_of(ax, (4.6, 3.4))
    for line, colour in zip(result, LINES, strict=False):
        ax.plot(result.edges, line, color=colour, marker="o", ms=3, label=str(line.score.item()))
    for level in (0.0, 1.0):
        ax.axhline(level, color="0.7", lw=0.8, zorder=0)
    ax.set(xlabel="edges in the circuit", ylabel=label_of(result), title=title)
    ax.legend(frameon=False, fontsize=8)
    return ax


def roc(
    curves: Mapping[str, Dataset], ax: Axes | None = None, title: str = "", *, style: str = "-"
) -> Axes:
    """Recall against the rate of false positives, a line for each `discovery.curve`. The legend has
    the areas. Random scores lie on the diagonal."""
    ax = axes_of(ax, (3.8, 3.6))
    ax.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls="--", zorder=0)
    for i, (name, curve) in enumerate(curves.items()):
        label = f"{name}: {curve.attrs['auc']:.2f}"
        # The first line is the widest, so that lines on the same points are all visible.
        ax.plot(curve.false_positive_rate, curve.recall, style, color=LINES[i % len(LINES)],
                lw=1.2 + 1.2 * (len(curves) - 1 - i), label=label)  # fmt: skip
    ax.set(xlabel="share of the other edges", ylabel="share of the circuit's edges", title=title,
           xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")  # fmt: skip
    ax.legend(title="area under the curve", frameon=False, fontsize=8, loc="lower right")
    return ax


def _rows(kept: DataArray) -> list[list[str]]:
    """The components of a model in rows, from the embedding up."""
    rows: dict[str, list[str]] = {}
    for name in kept.sender.values:
        layer = name.partition("H")[0] if name.startswith("L") else name
        rows.setdefault("embed" if name == "pos" else layer, []).append(str(name))
    return [*rows.values(), ["logits"]]
