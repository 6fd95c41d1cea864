"""DataFrame -> cells: tokens and numbers with the colours of their values. Pictures (tables) and
HTML (html_tables) both draw these cells."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from pandas import DataFrame

from analyses.plots.canvas import show_token

DEEPEST = 0.6
"Opacity at the end of the scale: text of either page keeps a contrast of 4.5 or more on it."
BLUE, ORANGE = (0, 114, 178), (213, 94, 0)
"Okabe and Ito's, for values above and below 0."


@dataclass(frozen=True)
class Piece:
    """A token with its whitespace made visible; with a value, on the colour of the value."""

    text: str
    colour: str = ""
    value: float = 0.0


@dataclass(frozen=True)
class Cell:
    """A cell of a table: tokens, a number or words."""

    text: str = ""
    pieces: tuple[Piece, ...] | None = None
    colour: str = ""
    is_number: bool = False
    is_marked: bool = False


def strength(value: float, scale: float) -> float:
    """The opacity of the colour of a value: 0 at 0, DEEPEST at `scale` and beyond. ValueError
    unless scale is above 0."""
    if not scale > 0:
        raise ValueError(f"a scale of colours ends above 0, got {scale}")
    return DEEPEST * min(abs(value) / scale, 1.0)


def colour(value: float, scale: float) -> str:
    """A CSS colour for a value: from clear at 0 to blue at `scale`, to orange at -`scale`, and no
    deeper beyond. ValueError unless scale is above 0."""
    red, green, blue = BLUE if value >= 0 else ORANGE
    return f"rgba({red}, {green}, {blue}, {strength(value, scale):.2f})"


def piece(text: str, value: float, scale: float) -> Piece:
    """A token on the colour of its value."""
    return Piece(show_token(text), colour(value, scale), value)


def ends(frame: DataFrame, given: Mapping[str, float]) -> dict[str, float]:
    """The end of the scale of each column that has colours: the one given, or the largest size in
    the lists of the column."""
    found = {}
    for name in map(str, frame):
        lists = [cell for cell in frame[name] if isinstance(cell, list)]
        sizes = [abs(value) for cell in lists for _, value in cell]
        if name in given or lists:
            found[name] = given.get(name) or max(sizes, default=0.0) or 1.0
    return found


def check_columns(frame: DataFrame, names: Collection[str]) -> None:
    """KeyError for a column that is not there."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise KeyError(f"no columns {missing}; there are {list(frame)}")


def cells(
    frame: DataFrame, tokens: Collection[str], scales: Mapping[str, float]
) -> Iterator[list[Cell]]:
    """The rows of a table. `tokens` names the columns of tokens, `scales` is that of `ends`."""
    for row in frame.to_dict("records"):
        yield [_cell(value, str(name) in tokens, scales.get(str(name)))
               for name, value in row.items()]  # fmt: skip


def _cell(value: Any, is_token: bool, scale: float | None) -> Cell:
    if isinstance(value, list):
        return Cell(pieces=tuple(piece(str(name), number, scale or 1.0) for name, number in value))
    if is_token:
        return Cell(pieces=(Piece(show_token(str(value))),))
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        text = f"{number:,.0f}" if isinstance(value, int | np.integer) else f"{number:.3g}"
        return Cell(text, colour=colour(number, scale) if scale else "", is_number=True)
    return Cell(str(value))
