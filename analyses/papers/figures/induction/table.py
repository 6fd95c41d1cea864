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
    """A column for each run, a row for each measure over training. Everything that tells of
    induction changes in the window, and in the control nothing does."""
    frame = DataFrame([_row(run) for run in of])
    able = np.array([run.able for run in of])
    shows = (frame["start"] != "none") & (frame["prefix_matching"] > 0.3)
    caption = (
        "Start and end are the steps of the window, before and after the in-context score there; "
        "loss, score and the best head's scores are those at the end; the heads that formed are "
        "those with prefix matching over 0.3."
    )
    return Finding(
        bool(able.any() and (shows == able).all()),
        "; ".join(f"in {run.name}: {'all' if each else 'not all'} of it"
                  for run, each in zip(of, shows, strict=True)),
        "From above: paths of token losses (a run that does not ship was measured on other text "
        "and has directions of its own, in which any path turns); training loss (grey) and "
        "held-out loss; loss by token index; its slope by the log of the index, less that after a "
        "fiftieth of the training; in-context score; prefix matching; trace of QK eigenvalues; "
        "both ablation rows with patterns held. Heads are coloured by layer, and in the ablation "
        "rows by what they are: orange induction, blue previous token. The paper's columns with "
        "MLPs, other data and 4 to 40 layers are not here.",
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
