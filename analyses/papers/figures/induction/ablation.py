"""Induction heads, Argument 3: the part of the phase change that each ablation undoes (O11, A5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from xarray import DataArray

from analyses import plots
from analyses.history import dynamics
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged_each, lacks_induction

AFTER = 30
"The number of records at the end of training over which verdicts average."
COLOURED = {
    "induction": "induction",
    "previous token": "previous token",
    "current token": "current token",
    "-": "other",
}
TEST = (
    "Each line is a head: the losses of 2,048 tokens with the head ablated, less their losses "
    "without ablation, projected on the change of these losses in the window (a unit vector). "
    "Below 0, the ablation undoes the change. Orange band: the window; a run without a window is "
    "shown with the window of the first run that has one. The test is on the mean over the end of "
    "training. Current-token heads act like a part of the embedding; among all other heads {who} "
    "has the largest effect, and undoes the change; and {they} together make up more than half of "
    "all that is undone, current-token heads included."
)


@history_figure(
    "induction/ablation",
    "The change without each head, pattern-preserving ablation",
    "Induction heads, Argument 3 (O11)",
    "ablating induction heads undoes the change, ablating previous-token heads does not, with "
    "patterns held",
)
def of_the_change(of: Sequence[Run]) -> Finding:
    """The part of the change of token losses in the window that the ablation of each head undoes,
    with all patterns held. The claim: the ablation of an induction head undoes the change."""
    caption = TEST.format(who="an induction head", they="the induction heads")
    return _of_the_change(
        of,
        "pattern-preserving",
        ("induction",),
        f"{caption} All patterns are held as they were.",
    )


@history_figure(
    "induction/full-ablation",
    "The change without each head, full ablation",
    "Induction heads, Argument 3 (A5)",
    "ablating induction heads undoes the change, and so does ablating the previous-token heads "
    "they are made with",
)
def of_the_change_in_full(of: Sequence[Run]) -> Finding:
    """The part of the change that the ablation of each head undoes, with patterns free. Now the
    ablation of a previous-token head also takes its work for induction heads away."""
    caption = TEST.format(
        who="an induction head or a previous-token head", they="the heads of both kinds"
    )
    return _of_the_change(
        of,
        "full",
        ("induction", "previous token"),
        f"{caption} Patterns after the head are free: without a previous-token head, later heads "
        "do not find their matches.",
    )


@dataclass(frozen=True)
class Undone:
    """The part of a change that ablations undo: the head of the largest effect among all heads but
    current-token heads, whether it is a carrier, and the share of the carriers in all that is
    undone, with and without current-token heads."""

    largest: str
    effect: float
    carried: bool
    share: float
    share_of_others: float

    @property
    def holds(self) -> bool:
        """Whether a carrier undoes most, and the carriers together more than half."""
        return self.carried and self.effect < 0 and self.share > 0.5


def undone(found: dict[str, dict[str, float]], carriers: Sequence[str]) -> Undone:
    """The result of the ablations, from the attribution of each head by role and label."""
    ours = {name: value for role in carriers for name, value in found[role].items()}
    rest = {name: value for role, heads in found.items() if role != "current token"
            for name, value in heads.items()}  # fmt: skip
    largest = max(rest, key=lambda name: abs(rest[name]))
    by_us, by_rest, by_current = (
        -sum(min(value, 0.0) for value in heads.values())
        for heads in (ours, rest, found["current token"])
    )
    shares = (by_us / max(whole, 1e-9) for whole in (by_rest + by_current, by_rest))
    return Undone(largest, rest[largest], largest in ours, *shares)


def _of_the_change(
    of: Sequence[Run], kind: str, carriers: tuple[str, ...], caption: str
) -> Finding:
    def test(run: Run) -> tuple[bool, str]:
        assert run.window
        change = dynamics.attribution(run.history, *run.window[:2]).sel(ablation=kind)
        found = _by_role(run, change)
        result = undone(found, carriers)
        said = [f"{role} {_listed(found[role])}" for role in COLOURED if role != "-"]
        said.append(f"others {_range(found['-'])}")
        said.append(f"{result.largest} has the largest effect; {' and '.join(carriers)} "
                    f"heads have {result.share:.0%} of all that is undone, and "
                    f"{result.share_of_others:.0%} without current-token heads")  # fmt: skip
        return result.holds, ", ".join(said)

    def picture() -> Picture:
        first = next((run.window[:2] for run in of if run.window), None)
        return with_roles(panels.row(of, lambda run, ax: panels.along(run, ax, kind, first)))

    return Finding(*judged_each(of, lacks_induction, test), caption, picture)


def _by_role(run: Run, values: DataArray) -> dict[str, dict[str, float]]:
    """The mean of each head over the end of training, by role and label."""
    end = values.isel(step=slice(-AFTER, None)).mean("step")
    found: dict[str, dict[str, float]] = {role: {} for role in COLOURED}
    columns = (run.roles.label, run.roles, end)
    for label, role, value in zip(*(x.values.flat for x in columns), strict=True):
        found[str(role)][str(label)] = float(value)
    return found


def _listed(values: dict[str, float]) -> str:
    return " ".join(f"{label} {value:+.2f}" for label, value in values.items()) or "none"


def _range(values: dict[str, float]) -> str:
    return f"{min(values.values()):+.2f} to {max(values.values()):+.2f}" if values else "none"


def with_roles(figure: Picture) -> Picture:
    """The picture with a legend of the roles of heads."""
    handles = [figure.axes[0].plot([], [], color=plots.ROLE_COLOURS[role], lw=2, label=said)[0]
               for role, said in COLOURED.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure
