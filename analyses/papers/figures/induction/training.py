"""Induction heads, Arguments 1 and 2: what happens in the phase change (O3 to O6, O10, O27)."""

from collections.abc import Sequence

import numpy as np
from xarray import DataArray

from analyses import plots
from analyses.history import dynamics, in_context
from analyses.history.dynamics import PhaseChange, around
from analyses.papers.figures import panels
from analyses.papers.figures.drawing import INDUCTION, Drawing, Verdict
from analyses.papers.figures.runs import Run, judged, runs

BAND = "Orange: the window of the phase change, found from the in-context score."
SMEARED = "attn-only-1l-smeared"


def phase_change(names: Sequence[str]) -> Drawing:
    """O3: the in-context score over training. It falls at once where induction can form, and never
    in one plain layer."""
    of = runs(names)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if run.window:
            start, end, before, after = run.window
            share = (end - start) / run.last
            return True, (f"from {before:+.2f} to {after:+.2f} nats between steps {start:,} and "
                          f"{end:,} ({share:.0%} of the training)")  # fmt: skip
        least = float(panels.smoothed(run.history.in_context_score).min())
        return False, f"no phase change (never below {least:+.2f})"

    return Drawing(
        panels.row(of, panels.in_context_score),
        "The phase change of in-context learning",
        f"Induction heads, Argument 1 (O3), {INDUCTION}",
        "Loss late in the context (tokens 246 to 254 of 256) less loss early in it (21 to 29), on "
        "text not trained on; grey single records, blue their running median. The window is where "
        "a line that is level before and after and falls in between fits best; it counts if it "
        f"falls by more than {dynamics.LEAST_FALL} nats, four times the scatter, in at most a "
        "third of the training.",
        judged("the score falls abruptly, except in one-layer models", of, test),
    )


def index_derivative(names: Sequence[str]) -> Drawing:
    """O4: derivative of the loss by the log of the token index. Later tokens get easier from the
    window on."""
    of = runs(names)

    def late(run: Run, step: int) -> float:
        slope = in_context.slope(in_context.by_log_index(around(run.history.loss_by_index, step)))
        return float(slope.where(slope.index > 0.1 * run.cfg.n_ctx).mean())

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        before, after = late(run, at.start), late(run, at.end)
        return after < 2 * min(before, -0.04), f"from {before:+.2f} to {after:+.2f} nats"

    return Drawing(
        panels.row(of, panels.slope_map, (2.9, 2.4)),
        "How much each e-fold of context helps",
        f"Induction heads, Argument 1 (O4), {INDUCTION}",
        "Blue: later tokens are easier than earlier ones. Of mean losses over half octaves of the "
        "index, less the slope after a fiftieth of the training, when a model knows which tokens "
        "are frequent: the text is not equally hard at every index. Between the orange lines: the "
        "window. "
        "The verdict is about the mean slope behind the first tenth of the context, which must at "
        "least double and pass -0.08.",
        judged("in the phase change the loss begins to fall along the context, also far into it",
               of, test),
    )  # fmt: skip


def heads_over_training(names: Sequence[str]) -> Drawing:
    """O5: prefix matching of every head over training. Induction heads form in the window."""
    of = runs(names)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        score = run.history.prefix_matching
        before, after = (float(around(score, step).max()) for step in at[:2])
        ends = score[-1] > 0.3
        formed = ", ".join(str(label) for label in score.label.values[ends.values]) or "no head"
        passes = before < 0.3 < after
        return passes, f"best {before:.2f} before and {after:.2f} after ({formed} at the end)"

    figure = panels.row(of, panels.prefix)
    figure.axes[0].legend(
        handles=[figure.axes[0].plot([], [], color=plots.LAYERS[i], label=f"layer {i}")[0]
                 for i in range(max(run.cfg.n_layers for run in of))],
        frameon=False, fontsize=8, loc="upper right")  # fmt: skip
    return Drawing(
        figure,
        "Induction heads form in the phase change",
        f"Induction heads, Argument 1 (O5), {INDUCTION}",
        f"Each line is a head, on random tokens said four times. {BAND} A head counts from 0.3 on; "
        "the best one must pass it in the window.",
        judged("induction heads form in the phase change, in every model that has one", of, test),
    )


def loss_curves(names: Sequence[str]) -> Drawing:
    """O6: loss over training. Models part from the one-layer model in the window."""
    of = runs(names)
    control = next((run for run in of if not run.able and run.cfg.n_layers == 1), None)

    def gap(run: Run) -> DataArray:
        assert control is not None
        base = np.interp(run.history.step, control.history.step, control.history.held_out)
        return run.history.held_out - base

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if control is None:
            return False, "no one-layer model beside it"
        if run is control:
            return False, "the control"
        before, after = (float(around(gap(run), step)) for step in at[:2])
        end = float(around(gap(run), run.last))
        passes = after < -0.05 and before - after > 0.5 * (before - end)
        return (
            passes,
            f"{before:+.2f} nats off at the start, {after:+.2f} after, {end:+.2f} at last",
        )

    figure, axes = plots.grid(1, 2, (4.4, 3.0))
    left, right = axes[0]
    for run in of:
        colour = panels.colours(of)[run.name]
        held = run.history.held_out
        plots.over_training(held, left, colours=[colour], names=[run.name])
        if control:
            plots.over_training(gap(run).assign_attrs(held.attrs), right, colours=[colour])
        if run.window:
            for ax in axes[0]:
                start, end = (run.millions(step) for step in run.window[:2])
                low, high = (0.0, 0.03) if ax is left else (0.97, 1.0)
                ax.axvspan(start, end, low, high, color=colour, alpha=0.6, lw=0)
    left.set(ylim=(3.4, 5.2), ylabel="held-out loss (nats)")
    right.set(ylim=(-0.35, 0.35), ylabel="less that of one layer (nats)")
    right.axhline(0, color="0.6", lw=0.6, zorder=0)
    left.legend(frameon=False, fontsize=8)
    return Drawing(
        figure,
        "Loss curves part in the phase change",
        f"Induction heads, Argument 1 (O6), {INDUCTION}",
        "Left: held-out loss. Right: less that of the plain one-layer model at the same step. "
        "Stripes in the colour of a run: its window. A run parts there if more than half of what "
        "it gains on one layer, from the window's start to the end of training, is gained in it.",
        judged("loss curves part from the one-layer model's at the phase change", of, test),
    )


def loss_speed(names: Sequence[str]) -> Drawing:
    """O27: derivative of the loss by the log of the tokens seen. In the paper the order of models
    turns around at the phase change."""
    of = runs(names)
    control = next((run for run in of if not run.able and run.cfg.n_layers == 1), None)

    def mean_speed(run: Run, start: int, end: int) -> float:
        first, last = (float(around(run.history.held_out, step)) for step in (start, end))
        return (last - first) / float(np.log(end / start))

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        if control is None or run is control:
            return (
                False,
                "no one-layer model beside it" if control is None else "the control",
            )
        spans = (at.start // 2, at.start), at[:2]
        faster = [mean_speed(run, *span) - mean_speed(control, *span) for span in spans]
        return faster[0] > 0.02 and faster[1] < -0.02, (
            f"{faster[0]:+.2f} nats per e-fold against one layer before, {faster[1]:+.2f} in it"
        )

    figure, axes = plots.grid(1, 1, (7.0, 3.0))
    for run in of:
        colour = panels.colours(of)[run.name]
        speed = dynamics.loss_speed(run.history)
        late = speed.isel(step=slice(30, None))
        plots.over_training(late, axes[0, 0], colours=[colour], names=[run.name])
        if run.window:
            start, end = (run.millions(step) for step in run.window[:2])
            axes[0, 0].axvspan(start, end, 0, 0.03, color=colour, alpha=0.6, lw=0)
    axes[0, 0].set(ylim=(-1.0, 0.1), xscale="log")
    axes[0, 0].legend(frameon=False, fontsize=8, ncols=2)
    return Drawing(
        figure,
        "How fast the loss falls",
        f"Induction heads, the derivative of loss curves (O27), {INDUCTION}",
        "Of held-out loss, over three tenths of an e-fold; stripes below in the colour of a run: "
        "its window. The verdict compares the mean slope before and in the window with that of one "
        "layer at the same steps: it must be slower before, by 0.02, and faster in it.",
        judged(
            "larger models learn more slowly before the phase change and faster in it", of, test
        ),
    )


def smeared_keys(names: Sequence[str]) -> Drawing:
    """O10, Argument 2: one layer whose keys see the token before has the phase change too, and
    earlier than two layers, which must first form a previous-token head."""
    of = runs(names)
    kinds = {
        "smeared": [run for run in of if run.able and run.cfg.n_layers == 1],
        "deep": [run for run in of if run.cfg.n_layers > 1],
        "plain": [run for run in of if not run.able],
    }

    def ends(kind: str) -> list[int]:
        return [run.window.end for run in kinds[kind] if run.window]

    complete = all(kinds.values()) and all(run.window for run in of if run.able)
    without = not any(run.window for run in kinds["plain"])
    earlier = bool(complete) and max(ends("smeared")) < min(ends("deep"))
    told = [
        f"in {run.name}: "
        + (f"between steps {run.window.start:,} and {run.window.end:,}, its best head then "
           f"at {float(around(run.history.prefix_matching, run.window.end).max()):.2f}"
           if run.window else "none")
        for run in of
    ]  # fmt: skip
    figure, axes = plots.grid(2, len(of), (2.5, 1.9))
    for run, (above, below) in zip(of, axes.T, strict=True):
        panels.in_context_score(run, above)
        panels.prefix(run, below)
        above.set(title=run.name, xlabel="")
    for line in axes:
        panels.same_scale(line)
    return Drawing(
        figure,
        "Smeared keys give one layer the phase change",
        f"Induction heads, Argument 2 (O10), {INDUCTION}",
        "Smeared keys are mixed with the key before, so that one layer can seek what followed its "
        f"own token. Above: the in-context score; below: prefix matching of each head. {BAND} No "
        "two-layer model with smeared keys ships.",
        Verdict(bool(complete and without and earlier),
                "paper: with smeared keys one layer has the phase change too, and it comes "
                f"earlier; here {'; '.join(told)}"),
    )  # fmt: skip
