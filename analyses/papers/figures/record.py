"""The record of a figure: its name, its place in a paper, the claim of the paper, and the function
that tests the claim in a model and draws the picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import matplotlib.figure
from matplotlib.axes import Axes

from analyses.papers.figures.runs import (
    CONTROL,
    ZOO,
    LeftOut,
    one_layer,
    runs,
    text_models,
    two_layers,
)
from circuits.io import load
from circuits.model import GPT, GPTConfig

Picture = matplotlib.figure.Figure
State = Literal["holds", "does not hold", "not testable here", "illustration"]
URLS = {
    "framework": "https://transformer-circuits.pub/2021/framework/index.html",
    "induction": "https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/"
    "index.html",
}


NOT_TESTED = " (not testable there)"


@dataclass(frozen=True)
class Verdict:
    """Whether the claim of a paper holds, with the numbers of the paper and ours in words."""

    state: State
    paper: str
    here: str

    @property
    def holds(self) -> bool:
        """Whether the claim was tested and holds."""
        return self.state == "holds"


@dataclass(frozen=True)
class Finding:
    """The result of a figure in a model. The numbers are computed already. The picture, the tables
    and the pages are made only when they are asked for."""

    holds: bool | None
    "None: the claim cannot be tested in this model."
    here: str
    "The numbers in words."
    caption: str
    picture: Callable[[], Picture] | None
    "None: no model can show anything, and `here` says why."
    tables: Callable[[], str] = str
    "HTML that the report shows under the picture."
    pages: Callable[[], Mapping[str, str]] = dict
    "Whole HTML documents that lie beside the report, by file name; `tables` may link to them."


@dataclass(frozen=True)
class Drawing:
    """One figure of a paper, drawn again."""

    figure: Picture | None
    "None where nothing can be shown: the verdict says why."
    title: str
    source: str
    "Paper, section and URL."
    caption: str
    verdict: Verdict
    html: str = ""
    pages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """Everything that is known of a figure before it is drawn."""

    name: str
    title: str
    where: str
    "The paper and the section, with the number of the figure in brackets."
    claim: str
    "The claim and the numbers of the paper, in words."
    find: Callable[..., Finding]
    "The function that tests and draws. Its argument is, by `kind`, a model, some runs or a seed."
    kind: Literal["model", "histories", "toy"] = "model"
    models: tuple[str, ...] = ("attn-only-2l",)
    "The names of the models that it is drawn from, unless another model is asked for."
    fits: Callable[[GPTConfig], bool] = two_layers
    "Whether a figure of one model is judged on a model that ships and reads text, by its config."
    beside: tuple[str, ...] = ()
    "The names of the controls that are shown beside the model that was asked for."
    seeds: tuple[int, ...] = (0,)
    "The seeds that a toy is trained from. Its verdict is on all of them, its picture of the first."
    layers: int = 0
    "The least number of layers that a model must have."
    identity: bool = False
    "Whether the claim is a law, which holds for all weights, trained or not."
    illustration: bool = False
    "Whether the figure repeats a drawing of the paper that claims nothing. It then has no verdict."
    same_as: str = ""
    "The name of another figure with the same test, if there is one. Both figures count once."
    url: str = ""

    @property
    def paper(self) -> str:
        """The first part of the name."""
        return self.name.split("/")[0]

    @property
    def summary(self) -> str:
        """The first paragraph of the documentation of `find`, in one line."""
        return " ".join((self.find.__doc__ or "").split("\n\n")[0].split())

    def shown(self, model: str = "") -> tuple[str, ...]:
        """The names of the models that are shown if `model` is asked for. No name if the figure
        trains a model of its own."""
        if self.kind == "toy" or not model:
            return self.models
        return tuple(dict.fromkeys((model, *self.beside)))

    def judged(self, model: str = "") -> tuple[str, ...]:
        """The names of the models that the verdict is on. A figure of one model is judged on the
        model that is asked for, or on the model that is shown and all others that ship, read text
        and fit."""
        shown = self.shown(model)
        if self.kind != "model" or model or self.illustration:
            return shown
        return tuple(dict.fromkeys((*shown, *text_models(self.fits))))

    def finding(self, model: GPT | str = "", loaded: Callable[[str], GPT] = load) -> Finding:
        """The result of the figure in a model, or in the models of a name. `loaded` gives the model
        of a name. Without a name the numbers come from every model that the figure is judged on,
        and the picture and the caption from the first. It raises LeftOut and ValueError as `draw`
        does."""
        if self.kind == "model":
            if model:
                return self._of_one(model, loaded)
            return together({name: self._of_one(name, loaded) for name in self.judged()})
        if not isinstance(model, str):
            raise ValueError(
                f"{self.name} is not drawn from a GPT: name a model that ships, or a folder"
            )
        if self.kind == "histories":
            return self.find(runs(self.shown(model)))
        if model:
            raise LeftOut(f"the figure trains a model of its own, and cannot be drawn from {model}")
        return together({f"seed {seed}": self.find(seed) for seed in self.seeds})

    def _of_one(self, model: GPT | str, loaded: Callable[[str], GPT]) -> Finding:
        given = loaded(model) if isinstance(model, str) else model
        if given.cfg.n_layers < self.layers:
            more = f"{self.layers} layer{'s' * (self.layers > 1)} or more"
            raise ValueError(f"{self.name} needs {more}, this model has {given.cfg.n_layers}")
        return self.find(given)

    def verdict(self, found: Finding) -> Verdict:
        """The verdict on a finding."""
        states: dict[bool | None, State] = {True: "holds", False: "does not hold"}
        state = states.get(found.holds, "not testable here")
        return Verdict("illustration" if self.illustration else state, self.claim, found.here)

    def draw(self, model: GPT | str = "", loaded: Callable[[str], GPT] = load) -> Drawing:
        """Draw the figure from a model, or from the model or models of a name (see `shown`), with
        its verdict (see `judged`).

        LeftOut if the figure cannot be drawn from the model that is asked for. ValueError if the
        model has too few layers, and for a GPT if the figure reads a history.
        """
        found = self.finding(model, loaded)
        url = self.url or URLS[self.paper]
        picture = found.picture() if found.picture else None
        return Drawing(picture, self.title, f"{self.where}, {url}", found.caption,
                       self.verdict(found), found.tables(), found.pages())  # fmt: skip


def together(found: Mapping[str, Finding]) -> Finding:
    """The findings in several models, or from several seeds, as one finding. The claim holds if it
    holds in each model that can show or refute it. It cannot be tested if there is no such model.
    The words name each model; all else is from the first."""
    first, *more = found.values()
    if not more:
        return first
    judged = [one.holds for one in found.values() if one.holds is not None]
    here = "; ".join(
        f"in {name}{NOT_TESTED * (one.holds is None)}: {one.here}" for name, one in found.items()
    )
    return replace(first, holds=all(judged) if judged else None, here=here)


def figure(
    name: str, title: str, where: str, claim: str, **fields: Any
) -> Callable[[Callable[..., Finding]], Figure]:
    """Make the record of a figure from the decorated function. `fields` are fields of `Figure`."""
    return lambda find: Figure(name, title, where, claim, find, **fields)


one_layer_figure = partial(figure, models=("attn-only-1l",), fits=one_layer)
history_figure = partial(figure, kind="histories", models=ZOO, beside=(CONTROL,))
toy_figure = partial(figure, kind="toy", models=())


def picture_of(ax: Axes) -> Picture:
    """The picture that these Axes are part of; ValueError if they are part of none."""
    found = ax.get_figure(root=True)
    if found is None:
        raise ValueError("these Axes belong to no figure")
    return found
