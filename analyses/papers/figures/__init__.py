"""The figures of the papers, each with a record: name, claim, models and the function that draws.

- EVERY: the record of each figure, by its name.
- every: the names of all figures.
- draw: one figure, drawn from a model.
- judge: the verdict of one figure on a model, without a picture.
- Figure: the record of a figure.
- Finding: the result of a figure in a model.
- Drawing: a figure that was drawn.
- Verdict: whether the claim of a paper holds.
- LeftOut: a figure says nothing about the model that was asked for.
"""

from collections.abc import Callable

from analyses.papers.figures import circuits, framework, induction, toys
from analyses.papers.figures.record import Drawing, Figure, Finding, Verdict
from analyses.papers.figures.runs import LeftOut
from circuits.io import load
from circuits.model import GPT

__all__ = [
    "EVERY",
    "Drawing",
    "Figure",
    "Finding",
    "LeftOut",
    "Verdict",
    "draw",
    "every",
    "judge",
]

EVERY: dict[str, Figure] = {
    record.name: record
    for module in (*framework.MODULES, *induction.MODULES, *toys.MODULES, circuits)
    for record in vars(module).values()
    if isinstance(record, Figure)
}


def every() -> list[str]:
    """The names of all figures, paper by paper."""
    return sorted(EVERY, key=lambda name: ("framework", "induction", "circuits").index(
        EVERY[name].paper))  # fmt: skip


def draw(name: str, model: GPT | str = "", loaded: Callable[[str], GPT] = load) -> Drawing:
    """Draw one figure of a paper from a model, or from the model or models of a name (see
    `Figure.shown`), and judge it on them. Without a model it is judged on all models that fit (see
    `Figure.judged`). `loaded` gives the model of a name.

    KeyError with the names that exist for an unknown figure or model. LeftOut and ValueError as in
    `Figure.draw`.
    """
    return _known(name).draw(model, loaded)


def judge(name: str, model: GPT | str = "", loaded: Callable[[str], GPT] = load) -> Verdict:
    """The verdict of one figure on a model, without a picture. The errors are the errors of
    `draw`."""
    record = _known(name)
    return record.verdict(record.finding(model, loaded))


def _known(name: str) -> Figure:
    if name not in EVERY:
        raise KeyError(f"no figure {name!r}; there are {every()}")
    return EVERY[name]
