"""One panel for each row of the Model Analysis Table. A panel shows one run over its training, with
the window of its phase change."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataArray

from analyses import plots
from analyses.history import dynamics, in_context
from analyses.papers.figures.runs import Run

Panel = Callable[[Run, Axes], None]
SMOOTH = 5
"The number of records in a running median: single records are noisy."


def colours(of: Sequence[Run]) -> dict[str, str]:
    """A colour for each run."""
    return {run.name: plots.RUNS[i % len(plots.RUNS)] for i, run in enumerate(of)}


def row(of: Sequence[Run], panel: Panel, size: tuple[float, float] = (2.5, 2.4)) -> Figure:
    """One panel for each run, side by side on the same scale."""
    figure, axes = plots.grid(1, len(of), (max(size[0], 4.6 / len(of)), size[1]))
    for run, ax in zip(of, axes[0], strict=True):
        panel(run, ax)
        ax.set_title(run.name, fontsize=9)
    same_scale(axes[0])
    return figure


def same_scale(axes: Iterable[Axes]) -> None:
    """Give all panels the lowest and the highest limit among them. Only the first keeps its label
    and its numbers."""
    axes = list(axes)
    limits = np.array([ax.get_ylim() for ax in axes])
    for i, ax in enumerate(axes):
        ax.set_ylim(limits[:, 0].min(), limits[:, 1].max())
        if i:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)


def empty(ax: Axes, why: str) -> None:
    """Say in a panel why it shows nothing."""
    ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", color="0.4")
    ax.set(xticks=[])


def smoothed(values: DataArray) -> DataArray:
    """Running median over the records."""
    return values.rolling(step=SMOOTH, center=True, min_periods=1).median().assign_attrs(
        values.attrs)  # fmt: skip


def losses(run: Run, ax: Axes) -> None:
    """Training and held-out loss."""
    both = ("train_loss", "0.6"), ("held_out", plots.TRAINED)
    for name, colour in both:
        words = str(run.history[name].long_name).replace(" loss", "")
        plots.over_training(run.history[name], ax, colours=[colour], names=[words])
    ax.set(ylabel="loss (nats)", ylim=(2.9, 5.6))
    ax.legend(frameon=False, fontsize=7, handlelength=1.2)
    run.band(ax)


def loss_map(run: Run, ax: Axes) -> None:
    """Loss by tokens seen and token index, in means over half octaves, which are less noisy."""
    losses = in_context.by_log_index(run.history.loss_by_index)
    plots.loss_map(losses, ax, limits=(3.0, 6.0), bar=_last(ax))
    _edges(run, ax)


def slope_map(run: Run, ax: Axes) -> None:
    """The derivative of the loss by the log of the token index, less its value after a fiftieth of
    the training, for the text is not equally hard at every index."""
    slope = in_context.slope(in_context.by_log_index(run.history.loss_by_index))
    early = dynamics.around(slope, int(0.02 * run.last))
    rise = (slope - early).assign_attrs(slope.attrs)
    plots.loss_map(rise, ax, limits=(-0.5, 0.5), bar=_last(ax))
    _edges(run, ax)


def in_context_score(run: Run, ax: Axes) -> None:
    """The in-context score: thin lines for the records, a thick line for their running median. If
    the history keeps windows, a band of two standard errors over windows."""
    score = run.history.in_context_score
    if "window_score" in run.history:
        each, middle = run.history.window_score, smoothed(score)
        error = 2 * each.std("window", ddof=1) / each.sizes["window"] ** 0.5
        seen = run.history.tokens / 1e6
        ax.fill_between(seen, middle - error, middle + error, color=plots.TRAINED, alpha=0.2, lw=0)
    plots.over_training(score, ax, colours=["0.75"], width=0.7)
    plots.over_training(smoothed(score), ax, colours=[plots.TRAINED])
    ax.set(ylabel="in-context score (nats)", ylim=(-0.45, 0.05))
    ax.axhline(0, color="0.7", lw=0.6, zorder=0)
    run.band(ax)


def prefix(run: Run, ax: Axes) -> None:
    """Prefix matching of each head, in the colour of its layer."""
    plots.over_training(run.history.prefix_matching, ax)
    ax.set_ylabel("prefix matching")
    run.band(ax)


def trace(run: Run, ax: Axes) -> None:
    """The trace of each QK circuit after layer 0, composed with previous-token heads."""
    later = run.history.qk_trace.isel(layer=slice(1, None))
    if not later.size:
        empty(ax, "needs a second layer")
        ax.set(ylim=(-1e-3, 1e-3))
        return
    plots.over_training(later, ax, colours=[plots.LAYERS[1]] * int(later[0].size))
    ax.set_ylabel("trace of QK eigenvalues")
    run.band(ax)


def along(
    run: Run,
    ax: Axes,
    ablation: str = "pattern-preserving",
    at: tuple[int, int] | None = None,
) -> None:
    """The part of the change of token losses in the window that the ablation of each head undoes.
    For a run without a window the change is between the records nearest to the steps `at`."""
    steps = run.window[:2] if run.window else at
    if steps is None:
        empty(ax, "no phase change")
        ax.set(ylim=(-1e-3, 1e-3))
        return
    recorded = run.history.step.values
    start, end = (int(recorded[np.abs(recorded - step).argmin()]) for step in steps)
    change = dynamics.attribution(run.history, start, end).sel(ablation=ablation)
    _by_role(run, change, ax)
    ax.set_ylabel("lost of the change\n(nats per token)")


def ablated_score(run: Run, ax: Axes, ablation: str = "pattern-preserving") -> None:
    """The rise of the in-context score without each head. Above 0, the head helps the score."""
    _by_role(run, run.history.ablated_in_context.sel(ablation=ablation), ax)
    ax.set_ylabel("rise of in-context\nscore without head")


def _by_role(run: Run, values: DataArray, ax: Axes) -> None:
    plots.over_training(smoothed(values), ax, colours=run.role_colours, width=1.0)
    ax.axhline(0, color="0.5", lw=0.6, zorder=0)
    run.band(ax)


def _last(ax: Axes) -> bool:
    """Whether a panel is the last in its row."""
    place = ax.get_subplotspec()
    return place is None or place.is_last_col()


def _edges(run: Run, ax: Axes) -> None:
    """Draw the window as two lines, for a band would hide the map."""
    for step in run.window[:2] if run.window else ():
        ax.axvline(run.millions(step), color=plots.WINDOW, lw=1.4)


ROWS: dict[str, Panel] = {
    "loss": losses,
    "loss by token index": loss_map,
    "its slope by log index": slope_map,
    "in-context score": in_context_score,
    "prefix matching": prefix,
    "QK trace": trace,
    "ablation, of the change": along,
    "ablation, of the score": ablated_score,
}
"The rows of the table below the row of the paths of token losses."
