"""Induction heads, Argument 4 and the appendix: heads at the end of training (O12, A1, A2)."""

from collections.abc import Sequence

import numpy as np
from pandas import DataFrame

from analyses import plots
from analyses.heads import attention, copying, induction
from analyses.history.dynamics import PhaseChange
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged, judged_each
from analyses.plots import html_tables
from circuits.io import load

PREFIX, COPYING = 0.3, 0.2
"""A head matches prefixes if its prefix matching is above the first number, and copies if its
copying is above the second (0.04 if all tokens are raised alike)."""
LITERAL = 0.5
"The paper's copying score of a head that copies, on its scale from -1 to 1."
WIDTHS = {"model": 24, "role": 17}


@history_figure(
    "induction/copying-heads",
    "Which heads copy what they find",
    "Induction heads, Argument 4 (O12)",
    "induction heads copy literally (copying and prefix matching .89/.75), and large models have "
    "some that translate (.20/.85) or match patterns (.69/.94)",
)
def table_of_heads(of: Sequence[Run]) -> Finding:
    """The heads with the most prefix matching, and their copying. The claim: induction heads
    copy."""
    rows = [row for run in of for row in _rows(run)]
    frame = DataFrame(rows).sort_values("prefix_matching", ascending=False).reset_index(drop=True)
    shown = frame.head(12).round(2)
    widths = {name: max(len(name) + 2, WIDTHS.get(name, 0)) for name in shown}

    def test(run: Run) -> tuple[bool, str]:
        found = frame.query("model == @run.name and role == 'induction'")
        said = " ".join(f"{one['head']} {one['paper_copying']:+.2f}/{one['prefix_matching']:.2f} "
                        f"({one['copying']:.2f} on our scale)"
                        for one in found.to_dict("records"))  # fmt: skip
        return bool((found.paper_copying > LITERAL).any()), said

    caption = (
        "Paper copying: of the logits of the sample that the head's output raises, the share of "
        "the attended tokens, times 4 less 1, as the paper scales it. It is small for a head that "
        "attends to several tokens at once. Copying: the same share for one source at a time (0.04 "
        "if all tokens are raised alike). OV copying: the sum of the eigenvalues of the OV circuit "
        "over the sum of their sizes."
    )
    return Finding(
        *judged_each(of, _without_heads, test),
        f"The twelve heads with the most prefix matching, of all runs. {caption} The test: in each "
        f"model some induction head has a copying score above {LITERAL} on the paper's scale. Two "
        "other heads of the paper translate and match patterns. They have figures of their own, on "
        "toys; no model here was trained on several languages.",
        lambda: plots.token_table(shown, widths),
        lambda: html_tables.fragment(html_tables.table(frame, caption=caption)),
    )


def _without_heads(run: Run) -> str:
    return "" if run.heads("induction") else "no induction head"


def _rows(run: Run) -> list[dict[str, str | float]]:
    end, model = run.history.isel(step=-1), load(run.name)
    columns = {
        "head": run.roles.label, "role": run.roles, "prefix_matching": end.prefix_matching,
        "paper_copying": 4 * induction.output_copying(model) - 1, "copying": end.copying,
        "previous_token": end.previous_token, "OV_copying": copying.score(model),
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
    """The layer in which induction heads form: in attention-only models the last layer, says the
    paper. Two layers cannot show it, for the first layer has nothing to compose with."""

    def test(run: Run) -> tuple[bool, str]:
        score = run.history.prefix_matching[-1]
        ours = score.where(run.roles == "induction").max("head")
        last = int(ours.fillna(-1.0).values.argmax()) == run.cfg.n_layers - 1
        passes = bool(ours[0].isnull()) and (last or run.cfg.d_mlp is not None)
        best = ", ".join(f"{float(value):.2f} in layer {i}"
                         for i, value in enumerate(ours.values) if value == value)  # fmt: skip
        return passes, f"of {run.cfg.n_layers} layers, the best induction heads have {best}"

    def shallow(run: Run) -> str:
        return "fewer than three layers" if run.cfg.n_layers < 3 else _without_heads(run)

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
        ax.axhline(attention.THRESHOLD, color="0.4", ls="--", lw=0.8)
        ax.set(xlim=(-0.5, column - 0.5), ylim=(-0.03, 1), xticks=[], ylabel="prefix matching")
        ax.spines[["top", "right"]].set_visible(False)
        return figure

    return Finding(
        *judged_each(of, shallow, test),
        "Each point is a head at the end of training; a head above the dashed line is an induction "
        "head. The test is on models of three layers or more that have induction heads: no "
        "induction head is in the first layer, and in attention-only models the strongest is in "
        "the last layer. Two layers cannot show this, for the first layer cannot compose with "
        "anything.",
        picture,
    )


@history_figure(
    "induction/prefix-and-copying",
    "Prefix matching and copying together",
    "Induction heads, the joint distribution of both scores (A2)",
    "in small models heads that match prefixes copy",
)
def prefix_and_copying(of: Sequence[Run]) -> Finding:
    """Prefix matching and copying of every head. The claim: heads that match prefixes copy."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        end = run.history.isel(step=-1)
        seeks, copies = end.prefix_matching > PREFIX, end.copying > COPYING
        both, alone = int((seeks & copies).sum()), int((seeks & ~copies).sum())
        return both > 0 and alone == 0, f"{both} heads match and copy, {alone} only match"

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
        "Each point is a head at the end of training; hollow: at initialisation. A head above the "
        "dashed line matches prefixes; a head to the right of the dashed line copies. The test: in "
        "each model that can do induction some head does both, and no head matches without "
        "copying; other models do not pass. The paper's models of more than 16 layers have heads "
        "that match prefixes and lower the attended token. No model here is large enough to look "
        "for such heads.",
        picture,
    )
