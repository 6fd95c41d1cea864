"""Running text as HTML. Each token has the colour of its value. The value appears when a reader
points at the token."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from analyses.plots.canvas import show_token
from analyses.plots.cells import colour
from analyses.plots.templates import render


@dataclass(frozen=True)
class Word:
    """One token as it is written on the page."""

    text: str
    colour: str
    said: str
    is_marked: bool
    ends_line: bool


def passage(
    values: Float[np.ndarray, " token"],
    tokens: Sequence[str],
    *,
    caption: str,
    scale: float,
    unit: str,
    framed: Collection[int] = (),
) -> str:
    """Tokens as text below a caption. A token has the colour of its value, blue above 0 and orange
    below, full at `scale`. It shows the value with its unit when a reader points at it. A token
    whose value is NaN has neither. Tokens whose numbers are in `framed` have a frame. The text is
    escaped. A token that holds only whitespace is made visible.

    ValueError unless there is one value for each token.
    """
    if len(tokens) != len(values):
        raise ValueError(f"wanted a value for each of {len(tokens)} tokens, got {len(values)}")
    words = [
        Word(
            _written(token),
            "" if np.isnan(value) else colour(value, scale),
            f"{value:+.2f} {unit}",
            index in framed,
            "\n" in token,
        )
        for index, (token, value) in enumerate(zip(tokens, values.tolist(), strict=True))
    ]
    return render("analyses.plots", "passage.html", caption=caption, words=words)


def _written(token: str) -> str:
    shown = show_token(token)
    return shown if shown == "BOS" or not token.strip() else token
