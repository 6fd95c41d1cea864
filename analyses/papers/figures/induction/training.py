"""Induction heads, Arguments 1 and 2: what happens in the phase change (O3 to O6, O10, O27)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots
from analyses.history import dynamics, in_context
from analyses.history.dynamics import PhaseChange, around
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import ZOO, Run, judged, plain_one_layer, two_widths

BAND = "Orange: the window of the phase change, found from the in-context score."


@history_figure(
    "induction/phase-change",
    "The phase change of in-context learning",
    "Induction heads, Argument 1 (O3)",
    "the score falls abruptly, except in one-layer models",
)
def phase_change(of: Sequence[Run]) -> Finding:
    """The in-context score over training. It falls at once where induction can form, and never
    in one plain layer."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if run.window:
            start, end, before, after = run.window
            share = (end - start) / run.last
            return True, (f"from {before:+.2f} to {after:+.2f} nats between steps {start:,} and "
                          f"{end:,} ({share:.0%} of the training)")  # fmt: skip
        least = float(panels.smoothed(run.history.in_context_score).min())
        return False, f"no phase change (never below {least:+.2f})"

    return Finding(
        *judged(of, test),
        "Loss late in the context (tokens 246 to 254 of 256) less loss early in it (21 to 29), on "
        "text not trained on; grey single records, blue their running median. The window is where "
        "a line that is level before and after and falls in between fits best; it counts if it "
        f"falls by more than {dynamics.LEAST_FALL} nats, four times the scatter, in at most a "
        "third of the training.",
        lambda: panels.row(of, panels.in_context_score),
    )


@history_figure(
    "induction/index-derivative",
    "How much each e-fold of context helps",
    "Induction heads, Argument 1 (O4)",
    "in the phase change the loss begins to fall along the context, also far into it",
)
def index_derivative(of: Sequence[Run]) -> Finding:
    """The derivative of the loss by the log of the token index. Later tokens get easier from the
    window on."""

    def late(run: Run, step: int) -> float:
        slope = in_context.slope(in_context.by_log_index(around(run.history.loss_by_index, step)))
        return float(slope.where(slope.index > 0.1 * run.cfg.n_ctx).mean())

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        before, after = late(run, at.start), late(run, at.end)
        return after < 2 * min(before, -0.04), f"from {before:+.2f} to {after:+.2f} nats"

    return Finding(
        *judged(of, test),
        "Blue: later tokens are easier than earlier ones. Of mean losses over half octaves of the "
        "index, less the slope after a fiftieth of the training, when a model knows which tokens "
        "are frequent: the text is not equally hard at every index. Between the orange lines: the "
        "window. The verdict is about the mean slope behind the first tenth of the context, which "
        "must at least double and pass -0.08.",
        lambda: panels.row(of, panels.slope_map, (2.9, 2.4)),
    )


@history_figure(
    "induction/heads-over-training",
    "Induction heads form in the phase change",
    "Induction heads, Argument 1 (O5)",
    "induction heads form in the phase change, in every model that has one",
)
def heads_over_training(of: Sequence[Run]) -> Finding:
    """Prefix matching of every head over training. Induction heads form in the window."""

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
        f"Each line is a head, on random tokens said four times. {BAND} A head counts from 0.3 on; "
        "the best one must pass it in the window.",
        picture,
    )


@history_figure(
    "induction/loss-curves",
    "Loss curves part in the phase change",
    "Induction heads, Argument 1 (O6)",
    "loss curves part from the one-layer model's at the phase change",
)
def loss_curves(of: Sequence[Run]) -> Finding:
    """Loss over training. Models part from the one-layer model in the window."""
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
        said = f"{before:+.2f} nats off at the start, {after:+.2f} after, {end:+.2f} at last"
        return passes, said

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.4, 3.0))
        left, right = axes[0]
        for run in of:
            colour, held = panels.colours(of)[run.name], run.history.held_out
            plots.over_training(held, left, colours=[colour], names=[run.name])
            _stripe(run, left, colour)
            if control:
                plots.over_training(gap(run).assign_attrs(held.attrs), right, colours=[colour])
                _stripe(run, right, colour, 0.97, 1.0)
        left.set(ylim=(3.4, 5.2), ylabel="held-out loss (nats)")
        right.set(ylim=(-0.35, 0.35), ylabel="less that of one layer (nats)")
        right.axhline(0, color="0.6", lw=0.6, zorder=0)
        left.legend(frameon=False, fontsize=8)
        return figure

    return Finding(
        *judged(of, test),
        "Left: held-out loss. Right: less that of the plain one-layer model at the same step. "
        "Stripes in the colour of a run: its window. A run parts there if more than half of what "
        "it gains on one layer, from the window's start to the end of training, is gained in it.",
        picture,
    )


@history_figure(
    "induction/loss-speed",
    "How fast the loss falls",
    "Induction heads, the derivative of loss curves (O27)",
    "larger models learn more slowly before the phase change and faster in it",
)
def loss_speed(of: Sequence[Run]) -> Finding:
    """The derivative of the loss by the log of the tokens seen. In the paper the order of models
    turns around at the phase change."""
    control = plain_one_layer(of)

    def mean_speed(run: Run, start: int, end: int) -> float:
        first, last = (float(around(run.history.held_out, step)) for step in (start, end))
        return (last - first) / float(np.log(end / start))

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if control is None or run is control:
            return False, "the control" if control else "no one-layer model beside it"
        spans = (at.start // 2, at.start), at[:2]
        before, inside = (mean_speed(run, *span) - mean_speed(control, *span) for span in spans)
        said = f"{before:+.2f} nats per e-fold against one layer before, {inside:+.2f} in it"
        return before > 0.02 and inside < -0.02, said

    def picture() -> Picture:
        figure, axes = plots.grid(1, 1, (7.0, 3.0))
        ax = axes[0, 0]
        for run in of:
            colour = panels.colours(of)[run.name]
            late = dynamics.loss_speed(run.history).isel(step=slice(30, None))
            plots.over_training(late, ax, colours=[colour], names=[run.name])
            _stripe(run, ax, colour)
        ax.set(ylim=(-1.0, 0.1), xscale="log")
        ax.legend(frameon=False, fontsize=8, ncols=2)
        return figure

    holds, here = judged(of, test)
    return Finding(
        holds if two_widths(of) else None,
        here,
        "Of held-out loss, over three tenths of an e-fold; stripes below in the colour of a run: "
        "its window. The mean slope before and in the window is compared with that of one layer at "
        "the same steps: it should be slower before, by 0.02, and faster in it. Models of one "
        "depth and two widths would test the claim.",
        picture,
    )


@history_figure(
    "induction/smeared-keys",
    "Smeared keys give one layer the phase change",
    "Induction heads, Argument 2 (O10)",
    "with smeared keys one layer has the phase change too, and it comes earlier",
    beside=ZOO[2:],
)
def smeared_keys(of: Sequence[Run]) -> Finding:
    """One layer whose keys see the token before has the phase change too, and earlier than two
    layers, which must first form a previous-token head."""
    smeared = [run for run in of if run.able and run.cfg.n_layers == 1]
    deep = [run for run in of if run.cfg.n_layers > 1]
    plain = [run for run in of if not run.able]
    ends = [[run.window.end for run in kind if run.window] for kind in (smeared, deep)]
    complete = smeared and deep and plain and all(run.window for run in of if run.able)
    without = not any(run.window for run in plain)

    def told(run: Run) -> str:
        if not run.window:
            return f"in {run.name}: none"
        best = float(around(run.history.prefix_matching, run.window.end).max())
        steps = f"between steps {run.window.start:,} and {run.window.end:,}"
        return f"in {run.name}: {steps}, its best head then at {best:.2f}"

    def picture() -> Picture:
        figure, axes = plots.grid(2, len(of), (2.5, 1.9))
        for run, (above, below) in zip(of, axes.T, strict=True):
            panels.in_context_score(run, above)
            panels.prefix(run, below)
            above.set(title=run.name, xlabel="")
        for line in axes:
            panels.same_scale(line)
        return figure

    return Finding(
        bool(complete and without and max(ends[0]) < min(ends[1])),
        "; ".join(told(run) for run in of),
        "Smeared keys are mixed with the key before, so that one layer can seek what followed its "
        f"own token. Above: the in-context score; below: prefix matching of each head. {BAND} No "
        "two-layer model with smeared keys ships.",
        picture,
    )


def _stripe(run: Run, ax: Axes, colour: str, low: float = 0.0, high: float = 0.03) -> None:
    """The window of a run as a stripe in its colour, at a height of the panel."""
    if run.window:
        start, end = (run.millions(step) for step in run.window[:2])
        ax.axvspan(start, end, low, high, color=colour, alpha=0.6, lw=0)
