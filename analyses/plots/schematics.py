"""Schematics: the model from bottom to top, arrows between token columns, formulas, terms."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from analyses.plots.canvas import TRAINED, Values, as_result, axes_of, literal, show_token
from analyses.plots.matrices import heatmap

STREAM = "#8C8C8C"
FEWEST = 0.02
"Arrows with less attention than this are not drawn."


class Step(NamedTuple):
    """One step of a schematic: its name, its formula, and the labels of its boxes. The boxes stand
    beside the stream. A step without boxes is a box on the stream."""

    name: str
    formula: str
    boxes: Sequence[str] = ()


def steps(
    sequence: Sequence[Step],
    ax: Axes | None = None,
    title: str = "",
    *,
    colours: Mapping[str, str] | None = None,
) -> Axes:
    """A model as a stream from bottom to top, with the components that read and write it. The first
    step is at the bottom. Formulas stand at the right. `colours` has the colours of boxes by
    label."""
    ax = axes_of(ax, (5.4, 1.0 * len(sequence) + 0.4))
    top = len(sequence) - 1
    ax.add_patch(FancyArrowPatch((0, -0.2), (0, top + 0.2), arrowstyle="-", color=STREAM, lw=5,
                                 alpha=0.45, zorder=0))  # fmt: skip
    for y, step in enumerate(sequence):
        if step.boxes:
            _beside(ax, step, y, colours or {})
        else:
            _box(ax, (-0.65, y - 0.2), (1.3, 0.4), step.name, "0.25")
        ax.text(3.5, y, step.formula, va="center", fontsize=11)
        if step.boxes:
            ax.text(3.5, y - 0.33, step.name, va="center", fontsize=8, color="0.35")
    ax.set(xlim=(-0.8, 7.6), ylim=(-0.5, top + 0.5), title=title)
    ax.axis("off")
    return ax


def _beside(ax: Axes, step: Step, y: int, colours: Mapping[str, str]) -> None:
    """Boxes right of the stream, with a reading arrow below and a writing arrow above them."""
    width = 2.5 / len(step.boxes)
    for i, label in enumerate(step.boxes):
        colour = colours.get(label, "0.25")
        _box(ax, (0.75 + i * width, y - 0.17), (width - 0.06, 0.34), label, colour,
             size=8.0 if len(step.boxes) <= 6 else 5.0)  # fmt: skip
    middle = 0.75 + 1.25
    for start, end in (((0, y - 0.42), (middle, y - 0.19)), ((middle, y + 0.19), (0, y + 0.42))):
        bend = "angle,angleA=0,angleB=90,rad=4" if end[0] else "angle,angleA=90,angleB=0,rad=4"
        ax.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=10, lw=1.2,
                                     color="0.4", connectionstyle=bend, shrinkA=0,
                                     shrinkB=0))  # fmt: skip


def _box(
    ax: Axes,
    corner: tuple[float, float],
    size_of: tuple[float, float],
    label: str,
    colour: str,
    size: float = 9.0,
) -> None:
    ax.add_patch(FancyBboxPatch(corner, *size_of, boxstyle="round,pad=0,rounding_size=0.06",
                                fc="white", ec=colour, lw=1.2))  # fmt: skip
    middle = (corner[0] + size_of[0] / 2, corner[1] + size_of[1] / 2)
    ax.text(*middle, label, ha="center", va="center", fontsize=size, color=colour)


def arrows(
    pattern: Values,
    tokens: Sequence[str],
    ax: Axes | None = None,
    title: str = "",
    *,
    strongest: tuple[int, int] | None = None,
) -> Axes:
    """An attention pattern (dest, src) in [0, 1] as arrows from sources (below) to destinations
    (above). An arrow is wider and darker for more attention, and is not drawn below FEWEST.

    Arrows from the first token are thin and grey. The arrow of the pair (dest, src) in `strongest`
    is orange. ValueError unless the pattern is square with a row for each token.
    """
    pattern = as_result(pattern, "dest", "src")
    if pattern.shape != (len(tokens), len(tokens)):
        raise ValueError(f"wanted a pattern of {len(tokens)} tokens, got {list(pattern.shape)}")
    ax = axes_of(ax, (0.45 * len(tokens) + 1, 3.4))
    for (dest, src), weight in np.ndenumerate(pattern.values):
        if weight >= FEWEST:
            ours = (dest, src) == strongest
            colour = "#D55E00" if ours else TRAINED if src else STREAM
            thick = 3 if src or ours else 1
            ax.add_patch(FancyArrowPatch(
                (src, 0.06), (dest, 0.94), arrowstyle="-|>", mutation_scale=5 + 7 * weight,
                lw=0.3 + thick * weight, alpha=min(1.0, 0.15 + 0.85 * weight), shrinkA=0,
                shrinkB=0, color=colour, zorder=3 if ours else 2 if src else 1))  # fmt: skip
    for x, token in enumerate(tokens):
        ax.plot([x, x], [-0.02, 1.02], color=STREAM, lw=4, alpha=0.25, zorder=0)
        for y, side in ((-0.08, "top"), (1.08, "bottom")):
            ax.text(x, y, literal(show_token(token)), rotation=90, ha="center", va=side, fontsize=8)
    ax.set(xlim=(-0.7, len(tokens) - 0.3), ylim=(-0.5, 1.45), title=title, xticks=[], yticks=[])
    for y, words in ((0.0, "reads from"), (1.0, "writes to")):
        ax.text(-0.75, y, words, ha="right", va="center", fontsize=8, color="0.35")
    ax.set_frame_on(False)
    return ax


def formula(lines: Sequence[str], ax: Axes | None = None, title: str = "") -> Axes:
    """Lines of mathtext or words, one below the other."""
    ax = axes_of(ax)
    ax.set_title(title)
    for i, line in enumerate(lines):
        size = 12 if "$" in line else 9
        ax.text(0, 1 - (i + 0.5) / len(lines), line, fontsize=size, va="center",
                transform=ax.transAxes)  # fmt: skip
    ax.axis("off")
    return ax


def terms(result: Values, tokens: Sequence[str], ax: Axes | None = None, title: str = "") -> Axes:
    """Sizes of terms (term, pos), at least 0, as a heatmap with the tokens below."""
    result = as_result(result, "term", "pos")
    ax = axes_of(ax, (9.0, 0.3 * result.shape[0] + 1.6))
    heatmap(result, ax)
    ax.set_title(title, pad=10)
    labels = result[str(result.dims[0])].values
    ax.set_yticks(range(len(labels)), [str(label) for label in labels])
    words = [literal(show_token(token)) for token in tokens]
    ax.set_xticks(range(len(tokens)), words, rotation=90, fontsize=8)
    ax.tick_params(axis="y", labelsize=8)
    ax.set(xlabel="", ylabel="")
    return ax


def chains(
    rows: Mapping[str, Sequence[str]],
    ax: Axes | None = None,
    title: str = "",
    *,
    shapes: Mapping[str, tuple[float, float]],
    meets: Mapping[tuple[str, str], str],
    wrong: tuple[str, str],
) -> Axes:
    """Products of matrices, one in each row under its name: a rectangle for each matrix, with the
    (rows, columns) of `shapes`. `meets` has the words between two matrices. The pair `wrong` is
    orange."""
    ax = axes_of(ax)
    unit, gap = 0.36, 0.32
    for number, (heading, names) in enumerate(rows.items()):
        x, y = 0.0, -3.7 * number
        ax.text(0, y + 1.4, heading, fontsize=9)
        for name, following in zip(names, [*names[1:], ""], strict=True):
            height, width = (unit * side for side in shapes[name])
            ax.add_patch(FancyBboxPatch((x, y - height / 2), width, height, fc="white", ec="0.25",
                                        lw=1.2, boxstyle="square,pad=0"))  # fmt: skip
            ax.text(x + width / 2, y + height / 2 + 0.16, name, ha="center", fontsize=10)
            if (name, following) in meets:
                colour = "#D55E00" if (name, following) == wrong else TRAINED
                at = x + width + gap / 2
                ax.plot([at, at], [y - 0.5, y + 0.5], color=colour, lw=3)
                ax.text(at, y - 0.85, meets[name, following], color=colour, ha="center",
                        va="top", fontsize=8)  # fmt: skip
            x += width + gap
    ax.set(xlim=(-0.3, 5.4), ylim=(-3.7 * (len(rows) - 1) - 1.8, 1.7), aspect="equal", title=title)
    ax.axis("off")
    return ax
