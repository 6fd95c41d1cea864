"""Induction heads, Argument 1: the paths of token losses (O7), and tokens that complete a
repeat."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import masks
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange, around
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import LeftOut, Run, judged
from circuits.io import models


@history_figure(
    "induction/trajectories",
    "Paths of token losses turn in the phase change",
    "Induction heads, Argument 1 (O7)",
    "paths pivot in the phase change, and the paths of one-layer models do not",
)
def trajectories(of: Sequence[Run]) -> Finding:
    """The path of each run through the two principal directions of token losses. The claim: it
    turns in the window.

    LeftOut for a run that does not ship. Such a run was measured on other text than its control,
    and in a plane of its own any path turns.
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

    return Finding(
        *judged(of, test),
        "Each path is a run: the losses of 2,048 single tokens of unseen text at each step, in the "
        "two directions in which these losses differ most over all runs of a panel, without the "
        "first fiftieth of the training. Runs that read the same tokens are in one panel. Orange, "
        "from A to B: the window. The test: the path of every run that can do induction turns by "
        "more than 15 degrees at A, coming from half the steps of A, and at B, going to the end of "
        "training; other runs do not turn so in the same steps.",
        lambda: _planes(of, ways),
    )


def _planes(of: Sequence[Run], ways: Mapping[str, DataArray]) -> Picture:
    """One plane for the runs that share their directions."""
    groups, colours = _same_tokens(of), panels.colours(of)
    figure, axes = plots.grid(1, len(groups), (max(4.6, 7.0 / len(groups)), 4.2))
    for group, ax in zip(groups, axes[0], strict=True):
        for run in group:
            marked = run.window and run.window[:2]
            plots.trajectory(ways[run.name], ax, marked=marked, colour=colours[run.name])
            ax.plot([], [], color=colours[run.name], label=run.name)
        ax.legend(frameon=False, fontsize=8)
    return figure


def paths(of: Sequence[Run]) -> dict[str, DataArray]:
    """The path of each run, without its first fiftieth. Runs that were measured on the same tokens
    share their directions."""
    found = {}
    for group in _same_tokens(of):
        ways = dynamics.trajectories([run.late().token_loss for run in group])
        found |= {run.name: way for run, way in zip(group, ways, strict=True)}
    return found


def _same_tokens(of: Sequence[Run]) -> list[list[Run]]:
    """Groups of runs that were measured on the same tokens: runs that ship and have the same
    vocabulary size and context length. Any other run is a group of its own."""
    groups: dict[tuple[object, ...], list[Run]] = {}
    for run in of:
        ships = run.name in models()
        kind = (run.cfg.d_vocab, run.cfg.n_ctx) if ships else (run.name,)
        groups.setdefault(kind, []).append(run)
    return list(groups.values())


def matches(
    rows: Int[Tensor, "batch pos"],
) -> tuple[Bool[Tensor, "batch pos-1"], Bool[Tensor, "batch pos-1"]]:
    """Right and wrong repeats. Right: the next token also followed an earlier copy of the current
    token. Wrong: the current token came earlier, but other tokens followed it."""
    after = masks.to_successors(rows)[:, :-1]
    right = (after & (rows[:, None, :] == rows[:, 1:, None])).any(-1)
    return right, after.any(-1) & ~right


def _angle(a: Float[np.ndarray, " 2"], b: Float[np.ndarray, " 2"]) -> float:
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    cosine = float(a @ b) / size if size else 1.0
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
