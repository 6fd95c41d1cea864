"""Induction heads, Argument 1: losses of single tokens (O7 to O9)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray

from analyses import losses, plots
from analyses.heads import masks
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange, around
from analyses.labelled import to_numpy
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import LeftOut, Run, judged, plain_one_layer
from analyses.prompts import passages
from circuits.io import load, models
from circuits.model import GPT

SHOWN = 118
"The number of tokens of the story that are shown."


@history_figure(
    "induction/trajectories",
    "Paths of token losses turn in the phase change",
    "Induction heads, Argument 1 (O7)",
    "paths pivot in the phase change, one-layer models' do not",
)
def trajectories(of: Sequence[Run]) -> Finding:
    """The way of each run through the two principal directions of its token losses. It turns
    in the window.

    LeftOut for a run that does not ship: it was measured on other text than its control, and in a
    plane of its own any path turns.
    """
    alone = [run.name for run in of if run.name not in models()]
    if alone:
        raise LeftOut(
            f"{alone[0]} was measured on other text than its control: in the two principal "
            "directions of one run alone any path turns"
        )
    ways = paths(of)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        way = ways[run.name]
        places = [around(way, step, 1).values for step in (at.start // 2, *at[:2])]
        last = way[-5:].mean("step").values
        before, inside, after = (b - a for a, b in zip(places, [*places[1:], last], strict=True))
        turns = _angle(before, inside), _angle(inside, after)
        return min(turns) > 15, f"turns by {turns[0]:.0f} and {turns[1]:.0f} degrees"

    def panel(run: Run, ax: Axes) -> None:
        plots.trajectory(ways[run.name], ax, run.name, marked=run.window and run.window[:2])

    return Finding(
        *judged(of, test),
        "Losses of 2,048 single tokens of unseen text at each step, in the two directions in which "
        "they differ most over all runs shown, without the first fiftieth of the training. Orange, "
        "from A to B: the window. The path must turn by more than 15 degrees at A, seen from half "
        "as many steps, and at B, looking to the end.",
        lambda: panels.row(of, panel, (2.6, 2.5)),
    )


def paths(of: Sequence[Run]) -> dict[str, DataArray]:
    """The way of each run, without its first fiftieth; those that ship share their directions,
    since they were measured on the same text, and any other has its own."""
    late = {run.name: run.late().token_loss for run in of}
    shipped = [run.name for run in of if run.name in models()]
    groups = [shipped] if shipped else []
    groups += [[run.name] for run in of if run.name not in shipped]
    found = {}
    for group in groups:
        ways = dynamics.trajectories([late[name] for name in group])
        found |= dict(zip(group, ways, strict=True))
    return found


@history_figure(
    "induction/before-and-after",
    "What induction does to the loss of each token",
    "Induction heads, Argument 1 (O8)",
    "repeats get better, and tokens that another one followed before get worse",
)
def before_and_after(of: Sequence[Run]) -> Finding:
    """What induction does to the loss of each token of a story of ours. Right repeats improve;
    a token that came before with another one after it gets worse."""
    control = plain_one_layer(of)
    able = [run for run in of if run.able]
    if control is None:
        raise LeftOut("it compares with a one-layer model, and none is among those named")
    base = load(control.name)
    rows = passages.tokens(base)
    without = losses.of_tokens(base, rows)
    right, wrong = matches(rows)
    gains = {run.name: without - losses.of_tokens(_reading_the_same(run.name, rows), rows)
             for run in able}  # fmt: skip
    told, holds = [], bool(able)
    for name, gain in gains.items():
        kinds = [gain[kind] for kind in (right, wrong, ~right & ~wrong)]
        means = [float(kind.mean()) for kind in kinds]
        error = float(kinds[1].std()) / len(kinds[1]) ** 0.5
        holds = holds and means[0] > 0.5 and means[1] < -2 * error
        told.append(
            f"in {name}: {-means[0]:+.2f} nats on right repeats, {-means[1]:+.2f} (standard error "
            f"{error:.2f}) where another token followed, {-means[2]:+.2f} elsewhere"
        )

    def picture() -> Picture:
        figure, axes = plots.grid(max(len(able), 1), 1, (9.6, 1.5))
        framed = (np.flatnonzero(right[0, : SHOWN - 1]) + 1).tolist()
        words = base.to_str_tokens(rows[0, :SHOWN])
        shown = gains or {of[0].name: torch.zeros_like(without)}
        for ax, (name, gain) in zip(axes[:, 0], shown.items(), strict=True):
            first = torch.nn.functional.pad(gain[0, : SHOWN - 1], (1, 0))
            bounded = DataArray(to_numpy(first), dims="token", attrs={"bounds": (-5.0, 5.0)})
            title = f"{name} against {control.name} (framed: induction is right)"
            plots.text(bounded, words, ax, title, framed=framed)
        return figure

    return Finding(
        holds,
        "; ".join(told) or "no model that can do induction",
        "The paper compares a model after its phase change with itself before it. Weights from "
        "before do not ship, so this compares with the one-layer model that never had one, on a "
        "story of ours. Blue: less loss, red: more, full at 5 nats. Numbers are of all eight "
        f"passages, {int(right.sum())} right repeats and {int(wrong.sum())} wrong ones.",
        picture,
    )


def matches(
    rows: Int[Tensor, "batch pos"],
) -> tuple[Bool[Tensor, "batch pos-1"], Bool[Tensor, "batch pos-1"]]:
    """Where the token that follows also followed an earlier copy of the token it follows, and where
    only others did."""
    after = masks.to_successors(rows)[:, :-1]
    right = (after & (rows[:, None, :] == rows[:, 1:, None])).any(-1)
    return right, after.any(-1) & ~right


def _reading_the_same(name: str, rows: Int[Tensor, "batch pos"]) -> GPT:
    model = load(name)
    if model.tokenizer is None or not torch.equal(passages.tokens(model), rows):
        raise LeftOut(f"{name} reads other tokens than the model it would be compared with")
    return model


@history_figure(
    "induction/token-losses",
    "One token gets easier, another harder",
    "Induction heads, Argument 1 (O9)",
    "in the phase change some tokens get much easier and others harder",
)
def token_losses(of: Sequence[Run]) -> Finding:
    """Losses of single tokens over training. In the window some fall and others rise, and more of
    both kinds than in the control."""
    base = [run for run in of if not run.able]

    def shares(run: Run, at: PhaseChange) -> Float[np.ndarray, " 2"]:
        change = _change(run, at)
        return np.array([float((change < -1).mean()), float((change > 1).mean())])

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        found = shares(run, at)
        least = np.max([shares(one, at) for one in base], 0) if base else np.zeros(2)
        said = f"{found[0]:.1%} fall and {found[1]:.1%} rise"
        if run.able and base:
            said += f" ({least[0]:.1%} and {least[1]:.1%} in one layer)"
        return bool(base) and bool((found > 1.5 * least).all()), said

    def panel(run: Run, ax: Axes) -> None:
        whose = run if run.window else next((one for one in of if one.window), None)
        alike = whose is run or (whose and {run.name, whose.name} <= set(models()))
        if not whose or not whose.window or not alike:
            panels.empty(ax, "no phase change")
            return
        order = _change(whose, whose.window).argsort().values
        two = run.history.token_loss[:, order[[len(order) // 100, -1 - len(order) // 100]]]
        pair = ("falls", "rises")
        names = pair if whose is run else [f"{said} in {whose.name}" for said in pair]
        plots.over_training(two, ax, colours=["#BBD4E8", "#F3CDB3"], width=0.7)
        shades = (plots.TRAINED, "#D55E00")
        plots.over_training(panels.smoothed(two), ax, colours=shades, names=names)
        ax.set(ylim=(0, 12), ylabel="loss (nats)")
        run.band(ax)
        ax.legend(frameon=False, fontsize=8)

    return Finding(
        *judged(of, test),
        "Two of the 2,048 tokens of unseen text whose losses are kept: those whose losses fall and "
        "rise more in the window than 99% of the others' (which they are, the history does not "
        "say); thin the records, thick their running median. Counted below are those that change "
        "by more than a nat; a run must have half as many again of both as the one-layer model in "
        "the same steps.",
        lambda: panels.row(of, panel, (2.5, 2.6)),
    )


def _change(run: Run, at: PhaseChange) -> DataArray:
    first, last = (around(run.history.token_loss, step) for step in at[:2])
    return last - first


def _angle(a: Float[np.ndarray, " 2"], b: Float[np.ndarray, " 2"]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / size if size else 1.0
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
