"""The models that figures read: the models that a claim is judged on, the histories of their
training, the runs that can form induction heads, and the controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray, Dataset

from analyses import plots
from analyses.heads import attention
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from analyses.labelled import interval
from circuits.io import folder_of, load, models, saved_config
from circuits.model import GPTConfig

ZOO = ("attn-only-2l", "attn-only-2l-seed1", "attn-only-1l-smeared", "attn-only-1l")
"Two seeds of two layers, one layer with smeared keys, and one plain layer, which is the control."
CONTROL = "attn-only-1l"


def one_layer(cfg: GPTConfig) -> bool:
    """Whether the claims about one layer are about a model of this config."""
    return cfg.attn_only and cfg.n_layers == 1 and not cfg.smeared_keys


def two_layers(cfg: GPTConfig) -> bool:
    """Whether the claims about two layers are about a model of this config."""
    return cfg.attn_only and cfg.n_layers >= 2


def text_models(fits: Callable[[GPTConfig], bool]) -> list[str]:
    """The names of the models that ship, read text, and have a config that `fits`."""
    found = [name for name in models() if fits(saved_config(folder_of(name)))]
    return [name for name in found if load(name).tokenizer is not None]


class LeftOut(ValueError):
    """A figure says nothing about the model that was asked for. The message says why. The report
    repeats the message, and does not count the figure as failed."""


@dataclass(frozen=True)
class Run:
    """A model that ships, or a folder, with the history of its training."""

    name: str
    cfg: GPTConfig
    history: Dataset

    @cached_property
    def window(self) -> PhaseChange | None:
        """The steps between which in-context learning formed, or None."""
        return dynamics.phase_change(self.history)

    @property
    def able(self) -> bool:
        """Whether its architecture can do induction: two layers, or keys that see the token
        before."""
        return self.cfg.n_layers > 1 or (self.cfg.n_layers == 1 and self.cfg.smeared_keys)

    @property
    def role_colours(self) -> list[str]:
        """The colour of each head, by its role at the end."""
        return [plots.ROLE_COLOURS[str(role)] for role in self.roles.values.flat]

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

    @cached_property
    def roles(self) -> DataArray:
        """The role of each head at the end, (layer, head), see `dynamics.roles`."""
        if "current_token" in self.history:
            return dynamics.roles(self.history)
        return dynamics.roles(self.history, attention.current_token(load(self.name)))

    def heads(self, role: str) -> list[str]:
        """The labels of the heads of a role."""
        return self.roles.label.values[(self.roles == role).values].tolist()


Test = Callable[[Run, PhaseChange], tuple[bool, str]]
"Tests whether a run shows the claim of the paper in a window, and gives the numbers in words."


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


def judged(of: Sequence[Run], test: Test) -> tuple[bool, str]:
    """Whether every run that can do induction passes the test and no other run does; and the
    numbers of all runs. At least one run must be able. A run is tested in its own window. A run
    without a window is tested in the first window of a run that can do induction."""
    own = [run.window for run in of if run.able and run.window]
    holds, here = any(run.able for run in of), []
    for run in of:
        at = run.window or (own[0] if own else None)
        passes, words = test(run, at) if at else (False, "no phase change")
        holds = holds and passes == run.able
        here.append(f"in {run.name}: {words}")
    return bool(holds), "; ".join(here)


def judged_each(
    of: Sequence[Run], why_not: Callable[[Run], str], test: Callable[[Run], tuple[bool, str]]
) -> tuple[bool | None, str]:
    """Whether every run passes that can be tested, and the numbers of all runs; None if no run can
    be tested. `why_not` names the thing that a run lacks; for a run that can be tested it gives an
    empty text."""
    asked, here = [], []
    for run in of:
        lacks = why_not(run)
        passes, words = (None, f"not tested, it has {lacks}") if lacks else test(run)
        asked += [] if passes is None else [passes]
        here.append(f"in {run.name}: {words}")
    return (all(asked) if asked else None), "; ".join(here)


def windowed(run: Run, name: str, step: int, near: int = 2) -> Float[Tensor, " window"]:
    """The values that the history keeps for each evaluation window under a name, at a step: the
    mean of the nearest record and the `near` records on either side."""
    return torch.from_numpy(dynamics.around(run.history[name], step, near).values).double()


def paired(values: Float[Tensor, " example"]) -> tuple[float, float, float]:
    """The mean over examples, and the ends of its 95% interval."""
    low, high = interval(values, torch.ones_like(values)).tolist()
    return float(values.mean()), low, high


def pairs_of_widths(of: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Pairs of a smaller and a larger run that differ in width alone. Both runs have a
    phase change."""

    def kind(run: Run) -> tuple[object, ...]:
        return run.cfg.n_layers, run.cfg.smeared_keys, run.cfg.d_mlp is None, run.cfg.d_vocab

    able = sorted((run for run in of if run.able and run.window), key=lambda run: run.cfg.d_model)
    return [(small, large) for small, large in combinations(able, 2)
            if kind(small) == kind(large) and small.cfg.d_model < large.cfg.d_model]  # fmt: skip


def lacks_induction(run: Run) -> str:
    """The thing that a run lacks to show the work of induction heads: such a head, or a window."""
    if not run.heads("induction"):
        return "no induction head"
    return "" if run.window else "no phase change"
