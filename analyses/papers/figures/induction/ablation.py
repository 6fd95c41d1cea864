"""Induction heads, Argument 3: what of the phase change is lost with each head (O11, A5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from xarray import DataArray

from analyses import plots
from analyses.history import dynamics
from analyses.papers.figures import panels
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged_each, lacks_induction

AFTER = 30
"The number of records from the end of training that verdicts average over."
COLOURED = {
    "induction": "induction",
    "previous token": "previous token",
    "current token": "current token",
    "-": "other",
}
TEST = (
    "What the head's ablation adds to the losses of 2,048 tokens, along how these losses changed "
    "in the window (a unit vector): below 0, the change is undone. Of all heads but those that "
    "attend to their own token, which are part of the embedding, {who} must have the largest "
    "effect, and {they} together make up more than half of all that is undone, at the end of "
    "training. Orange band: the window; a run without one is shown between the same steps."
)


@history_figure(
    "induction/ablation",
    "What is lost with each head, pattern-preserving ablation",
    "Induction heads, Argument 3 (O11)",
    "ablating induction heads undoes the change, ablating previous-token heads does not, with "
    "patterns held",
)
def of_the_change(of: Sequence[Run]) -> Finding:
    """How much of the change of token losses in the window is lost with each head, all patterns
    held where they were. Ablating an induction head undoes the change."""
    caption = TEST.format(who="an induction head", they="the induction heads")
    return _of_the_change(
        of,
        "pattern-preserving",
        ("induction",),
        f"{caption} All patterns are held where they were.",
    )


@history_figure(
    "induction/full-ablation",
    "What is lost with each head, full ablation",
    "Induction heads, Argument 3 (A5)",
    "ablating induction heads undoes the change, and so does ablating the previous-token heads "
    "they are made with",
)
def of_the_change_in_full(of: Sequence[Run]) -> Finding:
    """The same with patterns free. Now what previous-token heads do for induction is lost too."""
    caption = TEST.format(
        who="an induction head or a previous-token head", they="the heads of both kinds"
    )
    return _of_the_change(
        of,
        "full",
        ("induction", "previous token"),
        f"{caption} Patterns after the head are free, so that a previous-token head takes with it "
        "what later heads would have found.",
    )


@dataclass(frozen=True)
class Undone:
    """What ablations undo of a change: the head of the largest effect, of all that are no
    current-token heads, and the share of all that is undone that is due to the carriers; the share
    too when current-token heads are left out."""

    largest: str
    effect: float
    carried: bool
    share: float
    share_of_others: float

    @property
    def holds(self) -> bool:
        """Whether a carrier undoes most, and the carriers more than half."""
        return self.carried and self.effect < 0 and self.share > 0.5


def undone(found: dict[str, dict[str, float]], carriers: Sequence[str]) -> Undone:
    """What is undone, by the attributions of heads by role and label."""
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
        said.append(f"{result.largest} most; {result.share:.0%} of what all heads undo is by "
                    f"{' and '.join(carriers)} heads, {result.share_of_others:.0%} without "
                    "current-token heads")  # fmt: skip
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
