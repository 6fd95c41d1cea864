"""Induction heads, Argument 4 and the appendix: heads at the end of training (O12, A1, A2)."""

from collections.abc import Sequence

import numpy as np
from pandas import DataFrame

from analyses import plots
from analyses.heads import copying
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged
from analyses.plots import html_tables
from circuits.io import load

PREFIX, COPYING = 0.3, 0.2
"""A head seeks prefixes above the first and copies above the second (one that raises all tokens
alike has 0.04)."""
WIDTHS = {"model": 24, "role": 17}


@history_figure(
    "induction/copying-heads",
    "Which heads copy what they find",
    "Induction heads, Argument 4 (O12)",
    "induction heads copy literally (copying and prefix matching .89/.75), and large models have "
    "some that translate (.20/.85) or match patterns (.69/.94)",
)
def table_of_heads(of: Sequence[Run]) -> Finding:
    """The heads with the most prefix matching, and whether they copy. Induction heads do."""
    rows = [row for run in of for row in _rows(run)]
    frame = DataFrame(rows).sort_values("prefix_matching", ascending=False).reset_index(drop=True)
    shown = frame.head(12).round(2)
    widths = {name: max(len(name) + 2, WIDTHS.get(name, 0)) for name in shown}

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
    return Finding(
        *judged(of, test),
        f"The twelve heads with the most prefix matching. {caption} Heads above {PREFIX} must copy "
        f"above {COPYING}. The paper's other two heads translate and match patterns: nothing here "
        "was trained on several languages, and the pattern task has a model of its own.",
        lambda: plots.token_table(shown, widths),
        lambda: html_tables.fragment(html_tables.table(frame, caption=caption)),
    )


def _rows(run: Run) -> list[dict[str, str | float]]:
    end, roles = run.history.isel(step=-1), dynamics.roles(run.history)
    columns = {
        "head": roles.label, "role": roles, "prefix_matching": end.prefix_matching,
        "copying": end.copying, "previous_token": end.previous_token,
        "OV_copying": copying.score(load(run.name)),
    }  # fmt: skip
    heads = zip(*(column.values.ravel().tolist() for column in columns.values()), strict=True)
    return [{"model": run.name, **dict(zip(columns, head, strict=True))} for head in heads]


@history_figure(
    "induction/depth",
    "In which layer induction heads form",
    "Induction heads, where induction heads form (A1)",
    "in attention-only models they are in the last layer",
)
def depth(of: Sequence[Run]) -> Finding:
    """In which layer prefix matching forms. In attention-only models, the last. Two layers cannot
    show it: the first has nothing to compose with."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        high = run.history.prefix_matching[-1] > PREFIX
        layers = high.layer.values[high.any("head").values].tolist()
        said = " and ".join(map(str, layers))
        where = f"in layer {said} of {run.cfg.n_layers}" if layers else "nowhere"
        return layers == [run.cfg.n_layers - 1], where

    def picture() -> Picture:
        figure, axes = plots.grid(1, 1, (6.8, 3.2))
        ax, column = axes[0, 0], 0
        for run in of:
            score = run.history.prefix_matching[-1]
            for layer in range(run.cfg.n_layers):
                share = layer / max(run.cfg.n_layers - 1, 1)
                ax.plot(np.full(score.sizes["head"], column), score[layer].values, "o", ms=6,
                        alpha=0.8, color=plots.LAYERS[layer % 4], mec="0.2", mew=0.5)  # fmt: skip
                ax.annotate(f"layer {layer}", (column, -0.16), xycoords=("data", "axes fraction"),
                            ha="center", fontsize=8, color=str(0.1 + 0.3 * share))  # fmt: skip
                column += 1
            middle = column - (run.cfg.n_layers + 1) / 2
            ax.annotate(run.name, (middle, -0.26), xycoords=("data", "axes fraction"), ha="center",
                        fontsize=8, weight="bold")  # fmt: skip
            ax.axvline(column - 0.5, color="0.85", lw=0.8)
        ax.axhline(PREFIX, color="0.4", ls="--", lw=0.8)
        ax.set(xlim=(-0.5, column - 0.5), ylim=(-0.03, 1), xticks=[], ylabel="prefix matching")
        ax.spines[["top", "right"]].set_visible(False)
        return figure

    holds, here = judged(of, test)
    testable = max(run.cfg.n_layers for run in of) > 2
    return Finding(
        holds if testable else None,
        here,
        "Each point is a head at the end of training, those above the dashed line count. With two "
        "layers there is not much choice: the first cannot compose with anything. A model of three "
        "layers or more would test the claim.",
        picture,
    )


@history_figure(
    "induction/prefix-and-copying",
    "Prefix matching and copying together",
    "Induction heads, the joint distribution of both scores (A2)",
    "in small models heads that match prefixes copy",
)
def prefix_and_copying(of: Sequence[Run]) -> Finding:
    """Prefix matching and copying of every head. Here those that seek prefixes all copy."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        end = run.history.isel(step=-1)
        seeks, copies = end.prefix_matching > PREFIX, end.copying > COPYING
        both, alone = int((seeks & copies).sum()), int((seeks & ~copies).sum())
        return both > 0 and alone == 0, f"{both} seek and copy, {alone} only seek"

    def picture() -> Picture:
        figure, axes = plots.grid(1, 1, (5.6, 4.0))
        ax = axes[0, 0]
        ax.spines[["top", "right"]].set_visible(False)
        for run, colour in zip(of, plots.RUNS, strict=False):
            first, end = run.history.isel(step=0), run.history.isel(step=-1)
            many = int(end.copying.size)
            high = (end.prefix_matching > 0.15).values
            labels = np.where(high, end.label.values, "").ravel().tolist()
            plots.head_points(
                first.copying, first.prefix_matching, ax, colours=["0.7"] * many, hollow=True,
                name="at initialisation" if run is of[0] else "",
            )  # fmt: skip
            plots.head_points(end.copying, end.prefix_matching, ax, colours=[colour] * many,
                              labels=labels, name=run.name)  # fmt: skip
        ax.axhline(PREFIX, color="0.5", ls="--", lw=0.7)
        ax.axvline(COPYING, color="0.5", ls="--", lw=0.7)
        ax.set(xlim=(0, 0.45), ylim=(-0.03, 1), xlabel="copying", ylabel="prefix matching")
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        return figure

    return Finding(
        *judged(of, test),
        "Every head at the end of training. Above the dashed line heads seek what followed their "
        "own token, right of it they raise what they attend to. The paper's models of more than 16 "
        "layers have heads that seek and lower: none here is large enough to look for them.",
        picture,
    )
