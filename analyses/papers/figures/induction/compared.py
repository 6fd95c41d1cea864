"""Induction heads, Arguments 1 and 2: runs compared with one another (O10, O27)."""

from collections.abc import Sequence

import numpy as np

from analyses import plots
from analyses.history import dynamics
from analyses.history.dynamics import around
from analyses.papers.figures import panels
from analyses.papers.figures.induction.training import BAND, stripe
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import ZOO, Run, pairs_of_widths

NO_PAIR = "no two models that ship differ in width alone and both have a phase change"


@history_figure(
    "induction/loss-speed",
    "How fast the loss falls",
    "Induction heads, the derivative of loss curves (O27)",
    "larger models learn more slowly before the phase change and faster in it",
)
def loss_speed(of: Sequence[Run]) -> Finding:
    """The derivative of the loss by the log of the tokens seen. In the paper the order of the
    models turns around at the phase change."""
    pairs = pairs_of_widths(of)
    found = [_speeds(small, large) for small, large in pairs]

    def picture() -> Picture:
        figure, axes = plots.grid(1, 1, (7.0, 3.0))
        ax = axes[0, 0]
        for run in of:
            colour = panels.colours(of)[run.name]
            late = dynamics.loss_speed(run.history).isel(step=slice(30, None))
            plots.over_training(late, ax, colours=[colour], names=[run.name])
            stripe(run, ax, colour)
        ax.set(ylim=(-1.0, 0.1), xscale="log")
        ax.legend(frameon=False, fontsize=8, ncols=2)
        return figure

    told = [f"the slope of {large.name} less the slope of {small.name} is {before:+.2f} nats per "
            f"e-fold before the phase changes and {after:+.2f} after"
            for (small, large), (before, after) in zip(pairs, found, strict=True)]  # fmt: skip
    return Finding(
        all(before * after < 0 for before, after in found) if pairs else None,
        "; ".join(told) or NO_PAIR,
        "Each line is a run: the slope of the held-out loss by the log of the tokens seen, over "
        "three tenths of an e-fold. A stripe below, in the colour of a run, is its phase change. "
        "The test is on two models of the same depth and different width that both have a phase "
        "change. Their mean slopes are compared twice: in the second half of the steps before the "
        "first of the two phase changes begins, and from the end of the last one to twice that "
        "step. The order of the two slopes must not be the same.",
        picture,
    )


def _speeds(small: Run, large: Run) -> tuple[float, float]:
    """The slope of the larger run less the slope of the smaller, before and after the phase
    changes."""
    assert small.window and large.window
    start, end = (
        min(small.window.start, large.window.start),
        max(small.window.end, large.window.end),
    )
    spans = (max(start // 2, 1), start), (end, min(2 * end, small.last, large.last))
    before, after = (_mean_speed(large, *span) - _mean_speed(small, *span) for span in spans)
    return before, after


def _mean_speed(run: Run, start: int, end: int) -> float:
    """The slope of the held-out loss by the log of the step, in nats per e-fold."""
    first, last = (float(around(run.history.held_out, step)) for step in (start, end))
    return (last - first) / max(float(np.log(end / start)), 1e-9)


@history_figure(
    "induction/smeared-keys",
    "Smeared keys give one layer the phase change",
    "Induction heads, Argument 2 (O10)",
    "with smeared keys one layer has the phase change too, and it comes earlier",
    beside=ZOO[2:],
)
def smeared_keys(of: Sequence[Run]) -> Finding:
    """The in-context score and prefix matching with smeared keys and without. The claim: one layer
    whose keys see the token before has the phase change too, and earlier than models with plain
    keys, where a previous-token head must form first."""
    smeared = [run for run in of if run.cfg.smeared_keys]
    deep = [run for run in of if run.cfg.n_layers > 1 and not run.cfg.smeared_keys]
    plain = [run for run in of if not run.able]
    complete = smeared and deep and plain and all(run.window for run in of if run.able)
    without = not any(run.window for run in plain)
    earlier = bool(deep) and all(
        _ends(run) < min(map(_ends, _of_its_width(run, deep))) for run in smeared
    )

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
        bool(complete and without and earlier) if smeared and deep and plain else None,
        "; ".join(told(run) for run in of),
        f"Above: the in-context score. Below: prefix matching of each head. {BAND} A smeared key "
        "is mixed with the key before it, so one layer can find the token that followed its own "
        "token earlier. The test: every model that can do induction has a phase change; with "
        "smeared keys it ends earlier, in tokens seen, than in plain models of two layers or more "
        "(of the same width, if there are any); one plain layer has none.",
        picture,
    )


def _ends(run: Run) -> float:
    """The end of the phase change of a run, in millions of tokens."""
    return run.millions(run.window.end) if run.window else np.inf


def _of_its_width(run: Run, deep: Sequence[Run]) -> Sequence[Run]:
    """The plain deep runs of the same width, or all plain deep runs if there are none."""
    return [one for one in deep if one.cfg.d_model == run.cfg.d_model] or deep
