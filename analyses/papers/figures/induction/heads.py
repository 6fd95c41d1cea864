"""Induction heads, Argument 4 and the appendix: heads at the end of training (O12, A1, A2)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from analyses import plots
from analyses.heads import copying
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from analyses.papers.figures.drawing import INDUCTION, Drawing
from analyses.papers.figures.runs import Run, judged, runs
from analyses.plots import html_tables
from circuits.io import load

PREFIX, COPYING = 0.3, 0.2
"""A head seeks prefixes above the first and copies above the second (one that raises all tokens
alike has 0.04)."""
WIDTHS = {"model": 24, "role": 17}


def table_of_heads(names: Sequence[str]) -> Drawing:
    """O12: the heads with the most prefix matching, and whether they copy. Induction heads do."""
    of = runs(names)
    rows = [row for run in of for row in _rows(run)]
    frame = DataFrame(rows).sort_values("prefix_matching", ascending=False).reset_index(drop=True)
    shown = frame.head(12).round(2)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        found = frame[frame.model == run.name].query(f"prefix_matching > {PREFIX}")
        said = " ".join(f"{one['head']} {one['copying']:.2f}/{one['prefix_matching']:.2f}"
                        for one in found.to_dict("records"))  # fmt: skip
        return len(found) > 0 and bool((found.copying > COPYING).all()), said or "none"

    caption = (
        "Copying is the share of what a head raises in the sample that goes to the token it "
        "attends to (0.04 if all are raised alike, and not on the paper's scale from -1 to 1); OV "
        "copying the sum of the OV circuit's eigenvalues over the sum of their sizes."
    )
    return Drawing(
        plots.token_table(shown, {name: max(len(name) + 2, WIDTHS.get(name, 0)) for name in shown}),
        "Which heads copy what they find",
        f"Induction heads, Argument 4 (O12), {INDUCTION}",
        f"The twelve heads with the most prefix matching. {caption} Heads above {PREFIX} must copy "
        f"above {COPYING}. The paper's other two heads translate and match patterns: nothing here "
        "was trained on several languages, and the pattern task has a model of its own.",
        judged("induction heads copy literally (copying and prefix matching .89/.75), and large "
               "models have some that translate (.20/.85) or match patterns (.69/.94)", of, test),
        html=html_tables.fragment(html_tables.table(frame, caption=caption)),
    )  # fmt: skip


def _rows(run: Run) -> list[dict[str, str | float]]:
    end, roles = run.history.isel(step=-1), dynamics.roles(run.history)
    ov = copying.score(load(run.name))
    scores = (end.prefix_matching, end.copying, end.previous_token, ov)
    every = zip(roles.label.values.flat, roles.values.flat, *(x.values.flat for x in scores),
                strict=True)  # fmt: skip
    return [
        {"model": run.name, "head": str(label), "role": str(role), "prefix_matching": float(a),
         "copying": float(b), "previous_token": float(c), "OV_copying": float(d)}
        for label, role, a, b, c, d in every
    ]  # fmt: skip


def depth(names: Sequence[str]) -> Drawing:
    """A1: in which layer prefix matching forms. In attention-only models, the last."""
    of = runs(names)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        high = run.history.prefix_matching[-1] > PREFIX
        layers = high.layer.values[high.any("head").values].tolist()
        said = " and ".join(map(str, layers))
        where = f"in layer {said} of {run.cfg.n_layers}" if layers else "nowhere"
        return layers == [run.cfg.n_layers - 1], where

    figure, ax = _canvas()
    high = 0
    for run in of:
        score = run.history.prefix_matching[-1]
        for layer in range(run.cfg.n_layers):
            share = layer / max(run.cfg.n_layers - 1, 1)
            ax.plot(np.full(score.sizes["head"], high), score[layer].values, "o", ms=6, alpha=0.8,
                    color=plots.LAYERS[layer % 4], mec="0.2", mew=0.5)  # fmt: skip
            ax.annotate(f"layer {layer}", (high, -0.16), xycoords=("data", "axes fraction"),
                        ha="center", fontsize=8, color=str(0.1 + 0.3 * share))  # fmt: skip
            high += 1
        middle = high - (run.cfg.n_layers + 1) / 2
        ax.annotate(run.name, (middle, -0.26), xycoords=("data", "axes fraction"), ha="center",
                    fontsize=8, weight="bold")  # fmt: skip
        ax.axvline(high - 0.5, color="0.85", lw=0.8)
    ax.axhline(PREFIX, color="0.4", ls="--", lw=0.8)
    ax.set(xlim=(-0.5, high - 0.5), ylim=(-0.03, 1), xticks=[], ylabel="prefix matching")
    return Drawing(
        figure,
        "In which layer induction heads form",
        f"Induction heads, where induction heads form (A1), {INDUCTION}",
        "Each point is a head at the end of training, those above the dashed line count. With two "
        "layers there is not much choice: the first cannot compose with anything.",
        judged("in attention-only models they are in the last layer", of, test),
    )


def prefix_and_copying(names: Sequence[str]) -> Drawing:
    """A2: prefix matching and copying of every head. Here those that seek prefixes all copy."""
    of = runs(names)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        end = run.history.isel(step=-1)
        both = (end.prefix_matching > PREFIX) & (end.copying > COPYING)
        alone = (end.prefix_matching > PREFIX) & (end.copying <= COPYING)
        return bool(both.any()) and not bool(alone.any()), (
            f"{int(both.sum())} seek and copy, {int(alone.sum())} only seek"
        )

    figure, ax = _canvas((5.6, 4.0))
    for run, colour in zip(of, plots.RUNS, strict=False):
        first, end = run.history.isel(step=0), run.history.isel(step=-1)
        many = [colour] * int(end.copying.size)
        high = (end.prefix_matching > 0.15).values
        labels = np.where(high, end.label.values, "").ravel().tolist()
        plots.head_points(
            first.copying, first.prefix_matching, ax, colours=["0.7"] * len(many), hollow=True,
            name="at initialisation" if run is of[0] else "",
        )  # fmt: skip
        plots.head_points(end.copying, end.prefix_matching, ax, colours=many, labels=labels,
                          name=run.name)  # fmt: skip
    ax.axhline(PREFIX, color="0.5", ls="--", lw=0.7)
    ax.axvline(COPYING, color="0.5", ls="--", lw=0.7)
    ax.set(xlim=(0, 0.45), ylim=(-0.03, 1), xlabel="copying", ylabel="prefix matching")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return Drawing(
        figure,
        "Prefix matching and copying together",
        f"Induction heads, the joint distribution of both scores (A2), {INDUCTION}",
        "Every head at the end of training. Above the dashed line heads seek what followed their "
        "own token, right of it they raise what they attend to. The paper's models of more than 16 "
        "layers have heads that seek and lower: none here is large enough to look for them.",
        judged("in small models heads that match prefixes copy", of, test),
    )


def _canvas(size: tuple[float, float] = (6.8, 3.2)) -> tuple[Figure, Axes]:
    figure, axes = plots.grid(1, 1, size)
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    return figure, axes[0, 0]
