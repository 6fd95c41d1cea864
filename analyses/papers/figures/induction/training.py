"""Induction heads, Argument 1: the measures of training that change in the phase change (O3 to
O6)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange, around
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import (
    Run,
    judged,
    judged_each,
    paired,
    plain_one_layer,
    windowed,
)

GAP = 0.05
"The least fall of the gap between the loss late in the context and earlier, in nats."
BAND = "Orange: the window of the phase change, found from the in-context score."


@history_figure(
    "induction/phase-change",
    "The phase change of in-context learning",
    "Induction heads, Argument 1 (O3)",
    "the score falls abruptly, except in one-layer models",
)
def phase_change(of: Sequence[Run]) -> Finding:
    """The in-context score over training. The claim: it falls abruptly in models where induction
    can form, and not in one plain layer."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if run.window:
            start, end, before, after = run.window
            share = (end - start) / run.last
            said = f"from {before:+.2f} to {after:+.2f} nats between steps {start:,} and {end:,}"
            return True, f"{said} ({share:.0%} of the training){_fall_of_windows(run)}"
        least = float(panels.smoothed(run.history.in_context_score).min())
        return False, f"no phase change (never below {least:+.2f})"

    return Finding(
        *judged(of, test),
        "The in-context score: the loss late in the context less the loss early in it (about "
        "tokens 500 and 50 of 512, or the same shares of another context), on text that was not "
        "trained on. Grey: single records. Blue: their running median, with two standard errors "
        "over the evaluation windows if the history keeps them. Orange band: the phase change, "
        "which is the best fit of a curve that is level, falls, and is level again. It counts if "
        f"it falls by more than {dynamics.LEAST_FALL} nats and four times the scatter, in at most "
        "a third of the training. The test: every run that can do induction has a phase change, "
        "and no other run has one.",
        lambda: panels.row(of, panels.in_context_score),
    )


def _fall_of_windows(run: Run) -> str:
    """The fall of the in-context score of the evaluation windows in the phase change, in words."""
    if "window_score" not in run.history or not run.window:
        return ", without an interval, for its history keeps no windows"
    before, after = (windowed(run, "window_score", step) for step in run.window[:2])
    fall, low, high = paired(before - after)
    return f"; its windows fall by {fall:.2f} ({low:.2f} to {high:.2f})"


@history_figure(
    "induction/index-derivative",
    "How much each e-fold of context helps",
    "Induction heads, Argument 1 (O4)",
    "in the phase change the loss begins to fall along the context, also far into it",
)
def index_derivative(of: Sequence[Run]) -> Finding:
    """The derivative of the loss by the log of the token index. The claim: later tokens get easier
    from the window on."""
    base = [run for run in of if not run.able and "window_gap" in run.history]

    def lacks(run: Run) -> str:
        if not run.able:
            return "no way to do induction: the control"
        if not run.window:
            return "no phase change"
        if "window_gap" not in run.history:
            return f"no losses of windows by index; {_mean_fall(run)}"
        return "" if base else "no control with losses of windows by index beside it"

    def test(run: Run) -> tuple[bool, str]:
        assert run.window
        fall, low, high = paired(_gap_falls(run, run.window))
        least = max(float(_gap_falls(one, run.window).mean()) for one in base)
        passes = fall > GAP and low > 0 and least < fall / 2
        return passes, (f"the gap falls by {fall:.2f} nats ({low:.2f} to {high:.2f}), in the "
                        f"control by {least:.2f}")  # fmt: skip

    return Finding(
        *judged_each(of, lacks, test),
        "Colours: the slope of the loss by the log of the token index, less the slope after a "
        "fiftieth of the training, for the text is not equally hard at every index. Losses are "
        "means over half octaves of the index. Blue: later tokens became easier than earlier "
        "tokens. Between the orange lines: the phase change. The test is on the gap: the loss at "
        "three quarters of the context less the loss at one quarter, in each evaluation window. "
        f"The gap falls by more than {GAP} nats from before the phase change to after it, with the "
        "interval above 0; in the control it falls by less than half as much in the same steps.",
        lambda: panels.row(of, panels.slope_map, (2.9, 2.4)),
    )


def _gap_falls(run: Run, at: PhaseChange) -> Float[Tensor, " window"]:
    before, after = (windowed(run, "window_gap", step) for step in at[:2])
    return before - after


def _mean_fall(run: Run) -> str:
    """The fall of the same gap of mean losses, in words. It has no interval."""
    assert run.window
    gaps = []
    for step in run.window[:2]:
        loss = around(run.history.loss_by_index, step).values
        n, near = len(loss), round(len(loss) / 64)
        first, third = (loss[at - near - 1 : at + near].mean()
                        for at in (round(n / 4), round(3 * n / 4)))  # fmt: skip
        gaps.append(float(third - first))
    return f"the mean gap falls by {gaps[0] - gaps[1]:.2f} nats"


@history_figure(
    "induction/heads-over-training",
    "Induction heads form in the phase change",
    "Induction heads, Argument 1 (O5)",
    "induction heads form in the phase change, in every model that has one",
)
def heads_over_training(of: Sequence[Run]) -> Finding:
    """Prefix matching of every head over training. The claim: induction heads form in the
    window."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        score = run.history.prefix_matching
        before, after = (float(around(score, step).max()) for step in at[:2])
        ends = score[-1] > 0.3
        formed = ", ".join(str(label) for label in score.label.values[ends.values]) or "no head"
        passes = before < 0.3 < after
        return passes, f"best {before:.2f} before and {after:.2f} after ({formed} at the end)"

    def picture() -> Picture:
        figure = panels.row(of, panels.prefix)
        layers = range(max(run.cfg.n_layers for run in of))
        lines = [figure.axes[0].plot([], [], color=plots.LAYERS[i], label=f"layer {i}")[0]
                 for i in layers]  # fmt: skip
        figure.axes[0].legend(handles=lines, frameon=False, fontsize=8, loc="upper right")
        return figure

    return Finding(
        *judged(of, test),
        f"Each line is a head: its prefix matching on random tokens said four times. {BAND} The "
        "test: in every run that can do induction the best head is below 0.3 before the window and "
        "above 0.3 after it; in no other run is this so in the same steps.",
        picture,
    )


@history_figure(
    "induction/loss-curves",
    "Loss curves part in the phase change",
    "Induction heads, Argument 1 (O6)",
    "loss curves part from the one-layer model's at the phase change",
)
def loss_curves(of: Sequence[Run]) -> Finding:
    """Loss over training. The claim: models part from the one-layer model in the window."""
    control = plain_one_layer(of)

    def gap(run: Run) -> DataArray:
        assert control is not None
        base = np.interp(run.history.step, control.history.step, control.history.held_out)
        return run.history.held_out - base

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if control is None or run is control:
            return False, "the control" if control else "no one-layer model beside it"
        before, after, end = (float(around(gap(run), step)) for step in (*at[:2], run.last))
        passes = after < -0.05 and before - after > 0.5 * (before - end)
        said = (f"{before:+.2f} nats off at the start of the window, {after:+.2f} at its end, "
                f"{end:+.2f} at the end of training")  # fmt: skip
        return passes, said

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.4, 3.0))
        left, right = axes[0]
        for run in of:
            colour, held = panels.colours(of)[run.name], run.history.held_out
            plots.over_training(held, left, colours=[colour], names=[run.name])
            stripe(run, left, colour)
            if control:
                plots.over_training(gap(run).assign_attrs(held.attrs), right, colours=[colour])
                stripe(run, right, colour, 0.97, 1.0)
        left.set(ylim=(3.4, 5.2), ylabel="held-out loss (nats)")
        right.set(ylim=(-0.35, 0.35), ylabel="less the loss of one layer (nats)")
        right.axhline(0, color="0.6", lw=0.6, zorder=0)
        left.legend(frameon=False, fontsize=8)
        return figure

    return Finding(
        *judged(of, test),
        "Left: the held-out loss of each run. Right: this loss less the loss of the plain "
        "one-layer model at the same step. A stripe in the colour of a run is its window. The "
        "test: at the end of its window a run that can do induction is more than 0.05 nats below "
        "the one-layer model; and more than half of its gain on this model, from the start of the "
        "window to the end of training, is made in the window. No other run does so.",
        picture,
    )


def stripe(run: Run, ax: Axes, colour: str, low: float = 0.0, high: float = 0.03) -> None:
    """Draw the window of a run as a stripe in its colour, from `low` to `high` of the panel."""
    if run.window:
        start, end = (run.millions(step) for step in run.window[:2])
        ax.axvspan(start, end, low, high, color=colour, alpha=0.6, lw=0)
