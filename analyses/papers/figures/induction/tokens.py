"""Induction heads, Argument 1: losses of single tokens (O7 to O9)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import losses, plots
from analyses.heads import masks
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange, around
from analyses.labelled import to_numpy
from analyses.papers.figures import panels
from analyses.papers.figures.drawing import INDUCTION, Drawing, LeftOut, Verdict
from analyses.papers.figures.runs import Run, judged, runs
from analyses.prompts import passages
from circuits.io import load, models
from circuits.model import GPT

SHOWN = 118
"Tokens of the story that are shown."


def trajectories(names: Sequence[str]) -> Drawing:
    """O7: the way of each run through the two principal directions of its token losses. It turns
    in the window.

    LeftOut for a run that does not ship: it was measured on other text than its control, and in a
    plane of its own any path turns.
    """
    of = runs(names)
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

    figure, axes = plots.grid(1, len(of), (max(2.6, 4.6 / len(of)), 2.5))
    for run, ax in zip(of, axes[0], strict=True):
        plots.path(ways[run.name], run.window and run.window[:2], ax, run.name)
    panels.same_scale(axes[0])
    return Drawing(
        figure,
        "Paths of token losses turn in the phase change",
        f"Induction heads, Argument 1 (O7), {INDUCTION}",
        "Losses of 2,048 single tokens of unseen text at each step, in the two directions in which "
        "they differ most over all runs shown, without the first fiftieth of the training. Orange, "
        "from A to B: the window. The path must turn by more than 15 degrees at A, seen from half "
        "as many steps, and at B, looking to the end.",
        judged("paths pivot in the phase change, one-layer models' do not", of, test),
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


def before_and_after(names: Sequence[str]) -> Drawing:
    """O8: what induction does to the loss of each token of a story of ours. Right repeats improve;
    a token that came before with another one after it gets worse."""
    of = runs(names)
    control = next((run for run in of if not run.able and run.cfg.n_layers == 1), None)
    able = [run for run in of if run.able]
    if control is None:
        raise LeftOut("it compares with a one-layer model, and none is among those named")
    base = load(control.name)
    rows = passages.tokens(base)
    without = losses.of_tokens(base, rows)
    right, wrong = matches(rows)
    gains, says, holds = [], [], bool(able)
    for run in able:
        model = _reading_the_same(run.name, rows)
        gain = without - losses.of_tokens(model, rows)
        kinds = [gain[kind] for kind in (right, wrong, ~right & ~wrong)]
        means = [float(kind.mean()) for kind in kinds]
        error = float(kinds[1].std()) / len(kinds[1]) ** 0.5
        holds = holds and means[0] > 0.5 and means[1] < -2 * error
        gains.append(gain)
        says.append(
            f"in {run.name}: {-means[0]:+.2f} nats on right repeats, {-means[1]:+.2f} (standard "
            f"error {error:.2f}) where another token followed, {-means[2]:+.2f} elsewhere"
        )
    figure, axes = plots.grid(max(len(able), 1), 1, (9.6, 1.5))
    framed = (np.flatnonzero(right[0, : SHOWN - 1]) + 1).tolist()
    words = base.to_str_tokens(rows[0, :SHOWN])
    shown = gains or [torch.zeros_like(without)]
    for ax, gain, run in zip(axes[:, 0], shown, able or of, strict=False):
        first = torch.nn.functional.pad(gain[0, : SHOWN - 1], (1, 0))
        bounded = DataArray(to_numpy(first), dims="token", attrs={"bounds": (-5.0, 5.0)})
        title = f"{run.name} against {control.name} (framed: induction is right)"
        plots.text(words, bounded, ax, title, framed=framed)
    return Drawing(
        figure,
        "What induction does to the loss of each token",
        f"Induction heads, Argument 1 (O8), {INDUCTION}",
        "The paper compares a model after its phase change with itself before it. Weights from "
        "before do not ship, so this compares with the one-layer model that never had one, on a "
        "story of ours. Blue: less loss, red: more, full at 5 nats. Numbers are of all eight "
        f"passages, {int(right.sum())} right repeats and {int(wrong.sum())} wrong ones.",
        Verdict(
            bool(holds),
            "paper: repeats get better, and tokens that another one followed before get worse; "
            f"here {'; '.join(says) or 'no model that can do induction'}",
        ),
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


def token_losses(names: Sequence[str]) -> Drawing:
    """O9: losses of single tokens over training. In the window some fall and others rise, and more
    of both kinds than in the control."""
    of = runs(names)
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

    figure, axes = plots.grid(1, len(of), (max(2.5, 4.6 / len(of)), 2.6))
    for run, ax in zip(of, axes[0], strict=True):
        whose = run if run.window else next((one for one in of if one.window), None)
        if whose is None or (whose is not run and not {run.name, whose.name} <= set(models())):
            ax.text(0.5, 0.5, "no phase change", transform=ax.transAxes, ha="center", color="0.4")
            continue
        assert whose.window is not None
        order = _change(whose, whose.window).argsort().values
        two = run.history.token_loss[:, order[[len(order) // 100, -1 - len(order) // 100]]]
        shades, pair = (plots.TRAINED, "#D55E00"), ("falls", "rises")
        names = pair if whose is run else [f"{said} in {whose.name}" for said in pair]
        plots.over_training(two, ax, colours=["#BBD4E8", "#F3CDB3"], width=0.7)
        plots.over_training(panels.smoothed(two), ax, run.name, colours=shades, names=names)
        ax.set(ylim=(0, 12), ylabel="loss (nats)")
        run.band(ax)
        ax.legend(frameon=False, fontsize=8)
    panels.same_scale(axes[0])
    return Drawing(
        figure,
        "One token gets easier, another harder",
        f"Induction heads, Argument 1 (O9), {INDUCTION}",
        "Two of the 2,048 tokens of unseen text whose losses are kept: those whose losses fall and "
        "rise more in the window than 99% of the others' (which they are, the history does not "
        "say); thin the records, thick their running median. Counted below are those that change "
        "by more than a nat; a run must have half as many again of both as the one-layer model in "
        "the same steps.",
        judged("in the phase change some tokens get much easier and others harder", of, test),
    )


def _change(run: Run, at: PhaseChange) -> DataArray:
    first, last = (around(run.history.token_loss, step) for step in at[:2])
    return last - first


def _angle(a: Float[np.ndarray, " 2"], b: Float[np.ndarray, " 2"]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / size if size else 1.0
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
