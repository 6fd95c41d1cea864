"""An experiment as one value: a model, clean and corrupted tokens, and the metric of a run.

Patching, path patching, attribution, ablation, idealised patterns and discovery all take a Task:

    task = Task(model, clean, corrupted, metrics.logit_difference(right, wrong))
    patching.heads(task)
    attribution.heads(task)
    discovery.exact(task)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.causal import metrics
from analyses.labelled import examples, to_numpy, tokens_of
from circuits.decomposition import logits_at, same_run, stream
from circuits.hooks import Cache
from circuits.interventions import Metric, judged
from circuits.model import GPT, Ids, check_predicts

Tokens = Int[Tensor, "batch pos"]
Corrupted = Integer[Tensor, "..."] | Integer[np.ndarray, "..."] | Sequence[Any] | str | Cache
"Tokens of any shape that the model reads, text, or the Cache of a run."
Made = TypeVar("Made")
Replace = Literal["run", "mean", "zero", "resample"]
Into = Literal["clean", "corrupted"]


@dataclass(frozen=True, eq=False)
class Run:
    """One of the two runs of a task: its name, its tokens and all its activations."""

    task: "Task"
    name: str
    tokens: Tokens
    cache: Cache

    @cached_property
    def value(self) -> Float[Tensor, " example"]:
        """The metric of the run. ValueError if it is not finite."""
        model = self.task.model
        with torch.no_grad():
            logits = logits_at(model, stream(model, self.cache), self.task.at)
            return judged(self.task.metric, logits, f"the {self.name} run")


class Task:
    """Clean and corrupted tokens, and a metric of the logits [batch d_vocab] at the position `at`.

    The corrupted run can also be given as the Cache of a run, for example of a run with hooks.

    `at` is one position for all examples, or one for each; with None the metric gets the logits of
    all positions. Without a metric it is the mean next-token loss of the clean tokens, at all
    positions.

    `replace` says what an ablated component writes, and what a cut edge carries: the value of the
    corrupted "run", its "mean" over examples, "zero", or the value of another example ("resample").
    It is "run" by default, and "zero" if there are no corrupted tokens; "mean" and "resample" then
    take their values from the clean run.

    Nothing runs when a task is made. The runs happen at first use and are kept; they are made again
    when the model's weights or its hooks have changed. (Changes through `weight.data` are not
    noticed: torch does not count them.) ValueError for tokens that the model cannot read, and at
    first use for a metric that is not finite in both runs.
    """

    def __init__(
        self,
        model: GPT,
        clean: Ids | str,
        corrupted: Corrupted | None = None,
        metric: Metric | None = None,
        *,
        at: int | Int[Tensor, " batch"] | None = -1,
        replace: Replace | None = None,
    ) -> None:
        device = model.W_E.device
        self.model = model
        self.clean: Tokens = tokens_of(model, clean).to(device)
        self.corrupted: Tokens | Cache = self.clean
        if isinstance(corrupted, Cache):
            self.corrupted = same_run(model, corrupted)
        elif corrupted is not None:
            self.corrupted = tokens_of(model, corrupted).to(device)
        self.metric = metrics.next_token_loss(model, self.clean) if metric is None else metric
        self.at = None if metric is None else at
        self.replace = replace or ("zero" if corrupted is None else "run")
        if self.replace not in get_args(Replace):
            raise ValueError(f"replace={replace!r}; choose one of {list(get_args(Replace))}")
        if self.replace == "run" and corrupted is None:
            raise ValueError("replace='run' takes the values of a corrupted run: give its tokens")
        if self.replace == "run":
            self.check_same_shape()
        self._kept: dict[Callable, tuple[list, object]] = {}

    @property
    def clean_run(self) -> Run:
        """The run on the clean tokens."""
        return self.once(_clean_run)

    @property
    def corrupted_run(self) -> Run:
        """The run on the corrupted tokens."""
        return self.once(_corrupted_run)

    @property
    def clean_value(self) -> DataArray:
        """The metric of the clean run, (example)."""
        return self.labelled(self.clean_run.value)

    @property
    def corrupted_value(self) -> DataArray:
        """The metric of the corrupted run, (example)."""
        return self.labelled(self.corrupted_run.value)

    def base_and_source(self, into: Into) -> tuple[Run, Run]:
        """The run that is patched, and the run that the values come from. ValueError unless their
        tokens have the same shape, and for a model without layers."""
        if into not in get_args(Into):
            raise ValueError(f"into={into!r}; choose one of {list(get_args(Into))}")
        if not self.model.cfg.n_layers:
            raise ValueError("there is nothing to patch: the model has no layers")
        if into == "corrupted" and isinstance(self.corrupted, Cache):
            raise ValueError("the corrupted run is a Cache, so it cannot run again: into='clean'")
        self.check_same_shape()
        clean, corrupted = self.clean_run, self.corrupted_run
        return (clean, corrupted) if into == "clean" else (corrupted, clean)

    def check_same_shape(self) -> None:
        """ValueError unless clean and corrupted tokens have the same shape."""
        other = self.corrupted["embed"] if isinstance(self.corrupted, Cache) else self.corrupted
        clean, corrupted = list(self.clean.shape), list(other.shape[:2])
        if clean != corrupted:
            raise ValueError(f"clean tokens {clean} and corrupted tokens {corrupted} must have the "
                             f"same shape: each example is paired with one")  # fmt: skip

    def labelled(self, values: Float[Tensor, " example"]) -> DataArray:
        """A metric of a run on these tokens as a DataArray, (example)."""
        coords = {"example": examples(values, self.clean)}
        return DataArray(to_numpy(values), coords, "example", "metric")

    def once(self, make: Callable[["Task"], Made]) -> Made:
        """make(task). The result is kept until the model's weights or its hooks change."""
        state: list = [
            (weight.data_ptr(), 0 if weight.is_inference() else weight._version)
            for weight in self.model.parameters()
        ]
        state += [hook for point in self.model.hook_dict.values()
                  for hook in (*point.fwd, *point.bwd) if hook.run is None]  # fmt: skip
        kept = self._kept.get(make)
        if kept is None or kept[0] != state:
            kept = self._kept[make] = state, make(self)
        return kept[1]  # type: ignore[return-value]


def _clean_run(task: Task) -> Run:
    return _run(task, "clean", task.clean)


def _corrupted_run(task: Task) -> Run:
    return _run(task, "corrupted", task.corrupted)


def _run(task: Task, name: str, given: Tokens | Cache) -> Run:
    if isinstance(given, Cache):
        return Run(task, name, task.clean, given)
    with torch.no_grad():
        return Run(task, name, given, task.model.run_with_cache(given, None)[1])


def induction_task(
    model: GPT,
    length: int = 12,
    *,
    batch: int = 12,
    replace: Replace = "run",
    bos: int | None = None,
    seed: int = 0,
) -> Task:
    """The task of completing a repeat. The clean tokens are BOS (see prompts.bos_of) and `length`
    random tokens said twice, without the last one. The corrupted tokens differ from them in every
    place. The metric is the logit of the token that comes next in the clean tokens, less the logit
    of the token that the corrupted tokens would call for."""
    check_predicts(model.cfg, "the induction task")
    bos, others = prompts.bos_of(model, bos), model.cfg.d_vocab - 1
    clean = prompts.random_tokens(model, length, times=2, batch=batch, bos=bos, seed=seed)
    moves = prompts.random_tokens(model, 2 * length - 1, batch=batch, bos=bos, seed=seed + 1)
    other, places = clean[:, :-1].clone(), (moves[:, 1:] % others).clamp(min=1)  # never the same
    without_bos = other[:, 1:] - (other[:, 1:] > bos).long()
    moved = (without_bos + places) % others
    other[:, 1:] = moved + (moved >= bos).long()
    metric = metrics.logit_difference(clean[:, -1], other[:, length])
    return Task(model, clean[:, :-1], other, metric, replace=replace)
