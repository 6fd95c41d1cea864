"""Induction heads: loss by token index, and what the in-context score makes of it (O25, O26)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from xarray import DataArray

from analyses import plots
from analyses.history.dynamics import PhaseChange, around
from analyses.losses import early_and_late
from analyses.papers.figures import panels
from analyses.papers.figures.drawing import INDUCTION, Drawing, Verdict
from analyses.papers.figures.runs import Run, judged, runs


def score_choice(names: Sequence[str]) -> Drawing:
    """O25: the in-context score with other tokens as the early one. The fall in the window does not
    hang on the choice."""
    of = runs(names)
    shares = np.array([0.04, 0.06, 0.1, 0.15, 0.25])
    base = [run for run in of if not run.able]

    def falls(run: Run, at: PhaseChange) -> Float[np.ndarray, " choice"]:
        before, after = (around(_by_early(run, shares), step).values for step in at[:2])
        return before - after

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        found = falls(run, at)
        most = np.max([falls(one, at) for one in base], 0) if base else np.zeros(len(shares))
        passes = bool(base) and bool((found > 2 * np.maximum(most, 0.04)).all())
        return passes, f"falls by {found.min():.2f} to {found.max():.2f} nats"

    figure, axes = plots.grid(1, len(of), (max(2.5, 4.6 / len(of)), 2.5))
    ramp = ["#440154", "#3B528B", "#21918C", "#5EC962", "#D9B400"]
    for run, ax in zip(of, axes[0], strict=True):
        scores = _by_early(run, shares)
        index = [f"token {round(share * run.cfg.n_ctx)}" for share in shares]
        smooth = scores.rolling(step=5, center=True, min_periods=1).median()
        plots.over_training(smooth, ax, run.name, colours=ramp, names=index)
        ax.set(ylim=(-1.1, 0.3), ylabel="loss of the last tokens\nless an early one (nats)")
        run.band(ax)
    for ax in axes[0, 1:]:
        ax.set_ylabel("")
    axes[0, 0].legend(frameon=False, fontsize=7, ncols=2)
    return Drawing(
        figure,
        "Another in-context score",
        f"Induction heads, definitions (O25), {INDUCTION}",
        "The score with its early token elsewhere (averaged over a 64th of the context to either "
        "side), smoothed. In each, the fall in the window must be twice that of the one-layer "
        "model in the same steps, and over 0.08 nats.",
        judged("the choice of the token does not change the finding", of, test),
    )


def _by_early(run: Run, shares: Float[np.ndarray, " choice"]) -> DataArray:
    """In-context scores (step, choice): loss late in the context less that at each share of it."""
    loss, n = run.history.loss_by_index, run.cfg.n_ctx
    near = round(n / 64)
    early = [loss.isel(index=slice(max(0, round(share * n) - near - 1), round(share * n) + near))
             for share in shares]  # fmt: skip
    late = loss.isel(index=early_and_late(n)[1]).mean("index")
    values = np.stack([late - part.mean("index") for part in early], -1)
    return DataArray(values, dims=("step", "choice"),
                     coords={"step": loss.step, "tokens": loss.tokens})  # fmt: skip


def loss_by_index(names: Sequence[str]) -> Drawing:
    """O26: loss by token index of a larger model less a smaller one, at the end. In the paper most
    of the difference is there after some ten tokens."""
    of = runs(names)
    order = sorted(of, key=lambda run: (run.cfg.n_layers, run.cfg.smeared_keys))
    small = order[0]
    figure, axes = plots.grid(1, 1, (6.4, 3.2))
    says, holds = [], len(of) > 1
    for run in order[1:]:
        n = min(len(run.history.index), len(small.history.index))
        ends = [one.history.loss_by_index[-10:, :n].mean("step") for one in (run, small)]
        less = ends[0] - ends[1]
        shown = less.rolling(index=9, center=True, min_periods=1).mean()
        axes[0, 0].plot(
            less.index,
            shown,
            color=panels.colours(of)[run.name],
            label=f"{run.name} less {small.name}",
        )
        tenth, final = float(less[5:15].mean()), float(less[-n // 4 :].mean())
        holds = holds and final < 0 and tenth < 0.5 * final
        says.append(f"{run.name} less {small.name} {tenth:+.2f} nats at tokens 6 to 15 and "
                    f"{final:+.2f} in the last quarter")  # fmt: skip
    axes[0, 0].axhline(0, color="0.6", lw=0.6, zorder=0)
    axes[0, 0].set(xscale="log", xlabel="token index", ylabel="difference of losses (nats)")
    axes[0, 0].spines[["top", "right"]].set_visible(False)
    if len(order) > 1:
        axes[0, 0].legend(frameon=False, fontsize=8)
    return Drawing(
        figure,
        "Where in the context the larger model is better",
        f"Induction heads, loss by token index of larger and smaller models (O26), {INDUCTION}",
        "Mean of nine tokens, of the last ten records. The paper's models all do induction; here "
        "only the larger ones do, and that needs something to look back to.",
        Verdict(bool(holds), "paper: most of what a larger model gains it gains in the first ten "
                f"tokens or so; here {', '.join(says) or 'there is no other model to compare'}"),
    )  # fmt: skip
