"""Induction heads: loss by token index, and other in-context scores (O25, O26)."""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots
from analyses.history.dynamics import PhaseChange, around
from analyses.losses import early_and_late
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged, pairs_of_widths

SHARES = np.array([0.04, 0.06, 0.1, 0.15, 0.25])
"The places of the early token of an in-context score, as shares of the context."
LAST = 16
"The number of tokens at the end of the context that are averaged."
RAMP = ["#440154", "#3B528B", "#21918C", "#5EC962", "#D9B400"]


@history_figure(
    "induction/score-choice",
    "Another in-context score",
    "Induction heads, definitions (O25)",
    "the choice of the token does not change the finding",
)
def score_choice(of: Sequence[Run]) -> Finding:
    """The in-context score with other tokens as the early token. The claim: the fall in the window
    does not depend on the choice."""
    base = [run for run in of if not run.able]

    def falls(run: Run, at: PhaseChange) -> Float[np.ndarray, " choice"]:
        before, after = (around(_by_early(run), step).values for step in at[:2])
        return before - after

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        found = falls(run, at)
        most = np.max([falls(one, at) for one in base], 0) if base else np.zeros(len(SHARES))
        passes = bool(base) and bool((found > 2 * np.maximum(most, 0.04)).all())
        return passes, f"falls by {found.min():.2f} to {found.max():.2f} nats"

    def panel(run: Run, ax: Axes) -> None:
        index = [f"token {round(share * run.cfg.n_ctx)}" for share in SHARES]
        plots.over_training(panels.smoothed(_by_early(run)), ax, colours=RAMP, names=index)
        ax.set(ylim=(-1.1, 0.3), ylabel="loss of the last tokens\nless an early one (nats)")
        run.band(ax)

    def picture() -> Picture:
        figure = panels.row(of, panel, (2.5, 2.5))
        figure.axes[0].legend(frameon=False, fontsize=7, ncols=2, loc="lower left")
        return figure

    return Finding(
        *judged(of, test),
        "Each line is an in-context score with another early token (averaged over a 64th of the "
        "context to either side), smoothed. Orange band: the window. The test: in every model that "
        "can do induction each score falls in the window by more than 0.08 nats, and by more than "
        "twice its fall in the models that cannot do induction, in the same steps.",
        picture,
    )


def _by_early(run: Run) -> DataArray:
    """In-context scores, (step, choice): the loss late in the context less the loss at each share
    of the context."""
    loss, n = run.history.loss_by_index, run.cfg.n_ctx
    near = round(n / 64)
    early = [loss.isel(index=slice(max(0, round(share * n) - near - 1), round(share * n) + near))
             for share in SHARES]  # fmt: skip
    late = loss.isel(index=early_and_late(n)[1]).mean("index")
    values = np.stack([late - part.mean("index") for part in early], -1)
    return DataArray(values, dims=("step", "choice"),
                     coords={"step": loss.step, "tokens": loss.tokens})  # fmt: skip


@history_figure(
    "induction/loss-by-index",
    "Where in the context the larger model is better",
    "Induction heads, loss by token index of larger and smaller models (O26)",
    "most of what a larger model gains it gains in the first ten tokens or so",
)
def loss_by_index(of: Sequence[Run]) -> Finding:
    """The loss by token index of a larger model less the loss of a smaller model, at the end of
    training. In the paper most of the difference is there after some ten tokens."""
    less = {f"{large.name} less {small.name}": _less(large, small)
            for small, large in pairs_of_widths(of)}  # fmt: skip
    ends = {name: (float(one[5:15].mean()), float(one[-LAST:].mean()))
            for name, one in less.items()}  # fmt: skip
    holds = all(final < 0 and tenth < 0.5 * final for tenth, final in ends.values())
    told = [f"the loss of {name} is {tenth:+.2f} nats at tokens 6 to 15 and {final:+.2f} at the "
            f"last {LAST}"
            for name, (tenth, final) in ends.items()]  # fmt: skip

    def picture() -> Picture:
        figure, axes = plots.grid(1, 1, (6.4, 3.2))
        ax = axes[0, 0]
        shown = less or {run.name: run.history.loss_by_index[-10:].mean("step") for run in of}
        for (name, one), colour in zip(shown.items(), cycle(plots.RUNS), strict=False):
            smooth = one.rolling(index=9, center=True, min_periods=1).mean()
            ax.plot(one.index, smooth, color=colour, label=name)
        if less:
            ax.axhline(0, color="0.6", lw=0.6, zorder=0)
        ylabel = "difference of losses (nats)" if less else "loss (nats)"
        ax.set(xscale="log", xlabel="token index", ylabel=ylabel)
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(frameon=False, fontsize=8)
        return figure

    return Finding(
        holds if less else None,
        "; ".join(told)
        or "no two models that ship differ in width alone and both have a phase "
        "change; the figure shows the losses of each model",
        "Each line is a pair of models: the loss of the larger model less the loss of the smaller, "
        "in the mean of nine tokens and of the last ten records. Without such a pair, each line is "
        "the loss of a model. The test is on pairs of the same depth and different width that both "
        f"have a phase change: at the last {LAST} tokens the larger model is better, and more than "
        "half of this gap is there at tokens 6 to 15.",
        picture,
    )


def _less(run: Run, small: Run) -> DataArray:
    """The loss by index of a run less the loss of a smaller run, in the mean of the last ten
    records, as far as the shorter context reaches."""
    n = min(len(run.history.index), len(small.history.index))
    ends = [one.history.loss_by_index[-10:, :n].mean("step") for one in (run, small)]
    return ends[0] - ends[1]
