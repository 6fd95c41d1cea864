"""The models that ship as figures read them: those that a claim is judged on; and training
histories, runs that can form induction heads, and controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from matplotlib.axes import Axes
from xarray import Dataset

from analyses import plots
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from circuits.io import folder_of, load, models, saved_config
from circuits.model import GPTConfig

ZOO = ("attn-only-2l", "attn-only-2l-seed1", "attn-only-1l-smeared", "attn-only-1l")
"Two seeds of two layers, one layer with smeared keys, and one without: the control."
CONTROL = "attn-only-1l"


def one_layer(cfg: GPTConfig) -> bool:
    """Whether the claims about one layer are of such a model."""
    return cfg.attn_only and cfg.n_layers == 1 and not cfg.smeared_keys


def two_layers(cfg: GPTConfig) -> bool:
    """Whether the claims about two layers are of such a model."""
    return cfg.attn_only and cfg.n_layers >= 2


def text_models(fits: Callable[[GPTConfig], bool]) -> list[str]:
    """The names of the models that ship, read text and fit."""
    found = [name for name in models() if fits(saved_config(folder_of(name)))]
    return [name for name in found if load(name).tokenizer is not None]


class LeftOut(ValueError):
    """A figure says nothing about the model that was asked for. The message says why; the report
    repeats it, and does not count the figure as failed."""


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
        """The colour of each head, by its role at the end."""
        return [plots.ROLE_COLOURS[str(role)] for role in dynamics.roles(self.history).values.flat]

    @property
    def last(self) -> int:
        """The last recorded step."""
        return int(self.history.step.values[-1])

    def late(self) -> Dataset:
        """The history without its first fiftieth. There, the loss of every model falls alike."""
        step = self.history.step.values
        return self.history.isel(step=step >= 0.02 * step[-1])

    def millions(self, step: int) -> float:
        """The number of tokens seen at a recorded step, in millions."""
        return float(self.history.tokens.sel(step=step)) / 1e6

    def band(self, ax: Axes) -> None:
        """Draw the window of its phase change, if it has one."""
        if self.window:
            plots.window(ax, *(self.millions(step) for step in self.window[:2]))


Test = Callable[[Run, PhaseChange], tuple[bool, str]]
"Whether a run shows the claim of the paper in a window, and the numbers in words."


def runs(names: Sequence[str]) -> list[Run]:
    """The runs of these names; LeftOut for a run without a history, KeyError for a name of no
    model, ValueError for no name."""
    if not names:
        raise ValueError("a figure of training histories is drawn from one model or more, got none")
    found = []
    for name in names:
        if not dynamics.has_history(name):
            raise LeftOut(f"{name} has no history of its training: see `circuits train`")
        cfg = saved_config(folder_of(name))
        found.append(Run(name, cfg, dynamics.history(name)))
    return found


def plain_one_layer(of: Sequence[Run]) -> Run | None:
    """The first run of one layer that cannot do induction, or None."""
    return next((run for run in of if not run.able and run.cfg.n_layers == 1), None)


def two_widths(of: Sequence[Run]) -> bool:
    """Whether models of one depth that can do induction differ in width: a larger and a smaller one
    of which the paper's claims about size can be asked."""
    able = {(run.cfg.n_layers, run.cfg.d_model) for run in of if run.able}
    return len(able) > len({layers for layers, _ in able})


def judged(of: Sequence[Run], test: Test) -> tuple[bool, str]:
    """Whether every run that can do induction passes the test in its own window and no other run
    passes it, in its own window or in the first that was found; and the numbers of all runs."""
    own = [run.window for run in of if run.able and run.window]
    holds, here = any(run.able for run in of), []
    for run in of:
        at = run.window or (own[0] if own else None)
        passes, words = test(run, at) if at else (False, "no phase change")
        holds = holds and passes == run.able
        here.append(f"in {run.name}: {words}")
    return bool(holds), "; ".join(here)
