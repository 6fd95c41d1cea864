"""What figures of training histories read: runs, of which some can form induction heads and the
others are the control."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.axes import Axes
from xarray import Dataset

from analyses import plots
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from analyses.papers.figures.drawing import LeftOut, Verdict
from circuits.io import folder_of, saved_config
from circuits.model import GPTConfig

ZOO = ("attn-only-2l", "attn-only-2l-seed1", "attn-only-1l-smeared", "attn-only-1l")
"Two seeds of two layers, one layer with smeared keys, and one without: the control."
CONTROL = "attn-only-1l"


@dataclass(frozen=True)
class Run:
    """A model that ships, or a folder, with the history of its training."""

    name: str
    cfg: GPTConfig
    history: Dataset

    @cached_property
    def window(self) -> PhaseChange | None:
        """When in-context learning formed, or None."""
        return dynamics.phase_change(self.history)

    @property
    def able(self) -> bool:
        """Whether its architecture can do induction: two layers, or keys that see the token
        before."""
        return self.cfg.n_layers > 1 or (self.cfg.n_layers == 1 and self.cfg.smeared_keys)

    @property
    def role_colours(self) -> list[str]:
        """The colour of each head by what it is at the end."""
        return [plots.ROLE_COLOURS[str(role)] for role in dynamics.roles(self.history).values.flat]

    @property
    def last(self) -> int:
        """The last recorded step."""
        return int(self.history.step.values[-1])

    def late(self) -> Dataset:
        """The history without its first fiftieth, in which the loss falls from that of guessing in
        every model alike."""
        step = self.history.step.values
        return self.history.isel(step=step >= 0.02 * step[-1])

    def millions(self, step: int) -> float:
        """Tokens seen at a recorded step, in millions."""
        return float(self.history.tokens.sel(step=step)) / 1e6

    def band(self, ax: Axes) -> None:
        """Draw the window of its phase change, if it has one."""
        if self.window:
            plots.window(ax, *(self.millions(step) for step in self.window[:2]))


Test = Callable[[Run, PhaseChange], tuple[bool, str]]
"Whether a run shows what the paper claims about a window, and its numbers in words."


def runs(names: Sequence[str]) -> list[Run]:
    """The runs by these names; LeftOut for one without a history, KeyError for one that does not
    exist, ValueError for none."""
    if not names:
        raise ValueError("a figure of training histories is drawn from one model or more, got none")
    found = []
    for name in names:
        if not dynamics.has_history(name):
            raise LeftOut(f"{name} has no history of its training: see `circuits train`")
        cfg = saved_config(folder_of(name))
        found.append(Run(name, cfg, dynamics.history(name)))
    return found


def judged(paper: str, of: Sequence[Run], test: Test) -> Verdict:
    """Holds if every run that can do induction passes the test in its own window, there is one, and
    no other run passes it, in its own window or in the first that was found."""
    own = [run.window for run in of if run.able and run.window]
    holds, says = any(run.able for run in of), []
    for run in of:
        at = run.window or (own[0] if own else None)
        passes, words = test(run, at) if at else (False, "no phase change")
        holds = holds and passes == run.able
        says.append(f"in {run.name}: {words}")
    return Verdict(bool(holds), f"paper: {paper}; here {'; '.join(says)}")
