"""Induction heads, the Model Analysis Table (O17 to O24): all measures of all runs at once."""

from collections.abc import Sequence

import numpy as np
from pandas import DataFrame

from analyses import plots
from analyses.history import dynamics
from analyses.papers.figures import panels
from analyses.papers.figures.induction.tokens import paths
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run
from analyses.plots import html_tables


@history_figure(
    "induction/model-analysis",
    "The Model Analysis Table",
    "Induction heads, Model Analysis Table (O17)",
    "phase change, induction heads and in-context learning come together, in all models but those "
    "of one layer",
)
def model_analysis(of: Sequence[Run]) -> Finding:
    """A column for each run, a row for each measure over training. The claim: a phase change and
    induction heads come in the models that can do induction, and in no other."""
    frame = DataFrame([_row(run) for run in of])
    able = np.array([run.able for run in of])
    shows = (frame["start"] != "none") & (frame["prefix_matching"] > 0.3)
    caption = (
        "Start and end are the first and the last step of the window; before and after are the "
        "in-context scores at these steps. Loss, in-context score and the scores of the best heads "
        "are from the end of training. The heads that formed have prefix matching over 0.3."
    )
    return Finding(
        bool(able.any() and (shows == able).all()),
        "; ".join(f"{run.name} has {'both' if each else 'not both'} a phase change and a head with "
                  "prefix matching over 0.3" for run, each in zip(of, shows, strict=True)),
        "A column is a run, a row is a measure over its training. From above: paths of token "
        "losses (a run that does not ship was measured on other text and has directions of its "
        "own, in which any path turns); training loss (grey) and held-out loss; loss by token "
        "index; the slope of the loss by the log of the index, less the slope after a fiftieth of "
        "the training; in-context score; prefix matching; trace of QK eigenvalues; and two rows of "
        "ablations with patterns held. Heads have the colour of their layer, and in the ablation "
        "rows the colour of their role: orange induction, blue previous token. The paper's columns "
        "with MLPs, other data and 4 to 40 layers are not here. The test: a run that can do "
        "induction has a phase change and ends with a head whose prefix matching is over 0.3; no "
        "other run has both.",
        lambda: _picture(of),
        lambda: html_tables.fragment(html_tables.table(frame, caption=caption)),
    )  # fmt: skip


def _picture(of: Sequence[Run]) -> Picture:
    ways = paths(of)
    figure, axes = plots.grid(1 + len(panels.ROWS), len(of), (2.45, 1.75))
    for run, column in zip(of, axes.T, strict=True):
        marked = run.window and run.window[:2]
        plots.trajectory(ways[run.name], column[0], run.name, marked=marked)
        for ax, panel in zip(column[1:], panels.ROWS.values(), strict=True):
            panel(run, ax)
            ax.set(xlabel="M tokens seen", xlim=(0, run.millions(run.last)))
            if ax is not column[-1]:
                ax.set_xlabel("")
                ax.tick_params(labelbottom=False)
    for line in axes:
        panels.same_scale(line)
    for ax, name in zip(axes[:, 0], ["token losses, PC 2", *panels.ROWS], strict=True):
        ax.set_ylabel(name, fontsize=8)
    return figure


def _row(run: Run) -> dict[str, str | float]:
    end = run.history.isel(step=-1)
    high = (end.prefix_matching > 0.3).values
    start, last, before, after = ["none"] * 4
    if run.window:
        start, last = (f"{step:,}" for step in run.window[:2])
        before, after = (f"{score:+.2f}" for score in run.window[2:])
    best = float(end.prefix_matching.max()) if end.prefix_matching.size else 0.0
    trace = float(end.qk_trace.max()) if end.qk_trace.size else 0.0
    late = dynamics.around(run.history.in_context_score, run.last)
    return {
        "model": run.name, "start": start, "end": last, "before": before, "after": after,
        "held_out": float(end.held_out), "in_context": float(late),
        "prefix_matching": best, "QK_trace": trace,
        "formed": ", ".join(end.label.values[high].tolist()) or "none",
    }  # fmt: skip
