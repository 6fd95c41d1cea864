"""Every plot draws plain numbers as it draws labelled ones, and tokens as they are written."""

import math

import numpy as np
import pytest
import torch
from matplotlib.cbook import is_math_text
from matplotlib.text import Text
from pandas import DataFrame
from xarray import DataArray

from analyses import plots

PLAIN = {
    "heatmap": (lambda values: plots.heatmap(values), (2, 3)),
    "bars": (lambda values: plots.bars(values, control=values), (2, 3)),
    "text": (lambda values: plots.text(values, ["a", "b", "c"]), (3,)),
    "histogram": (lambda values: plots.histogram([values, values]), (2, 3)),
    "one histogram": (lambda values: plots.histogram(values), (2, 3)),
    "lines": (lambda values: plots.lines([values, values], names=["ours", "control"]), (2, 3)),
    "one line": (lambda values: plots.lines(values), (2, 3)),
    "terms": (lambda values: plots.terms(values, ["a", "b", "c"]), (2, 3)),
    "arrows": (lambda values: plots.arrows(values, ["a", "b", "c"]), (3, 3)),
}
"Every plot that takes a plain result, and the shape of it."


@pytest.mark.parametrize("name", PLAIN)
def test_tensors_and_arrays_are_drawn_as_the_same_numbers_with_labels_are(name):
    draw, shape = PLAIN[name]
    values = torch.linspace(0.1, 0.9, math.prod(shape)).reshape(shape)
    named = DataArray(values.numpy(), dims=("layer", "head")[: len(shape)])
    pictures = []
    for one in (named, values, values.numpy()):
        figure = draw(one).figure
        for ax in figure.axes:
            ax.set(xlabel="", ylabel="")
        figure.canvas.draw()
        pictures.append(np.asarray(figure.canvas.buffer_rgba()))
    assert all(np.array_equal(pictures[0], one) for one in pictures[1:])


def test_results_of_other_dims_are_refused_in_words():
    for draw in (plots.heatmap, plots.bars, plots.lines):
        with pytest.raises(ValueError, match=r"wanted a result with the dims .*got shape \[3\]"):
            draw(torch.ones(3))
    with pytest.raises(ValueError, match="a value for each of 2 tokens, got 3"):
        plots.text(torch.ones(3), ["a", "b"])


DOLLARS = ["$$", "$x_1$", r"$\frac$", r"\$", "a$"]
N = len(DOLLARS)
DRAWN = {
    "attention": lambda: plots.attention(torch.full((1, N, N), 0.2), DOLLARS)[0, 0],
    "text": lambda: plots.text(np.ones(N), DOLLARS),
    "arrows": lambda: plots.arrows(DataArray(np.eye(N)), DOLLARS),
    "terms": lambda: plots.terms(DataArray(np.ones((2, N)), dims=("term", "pos"),
                                           coords={"term": ["embed", "L0H0"]}), DOLLARS),
    "heatmap": lambda: plots.heatmap(DataArray(np.eye(N), {"out": DOLLARS}, ("out", "source"))),
    "token_table": lambda: plots.token_table(
        DataFrame({"source": DOLLARS, "out": [[(word, 1.0)] for word in DOLLARS]}),
        {"source": 12, "out": 12}).axes[0],
    "spelling_grid": lambda: plots.spelling_grid(DataArray(
        np.eye(N), {"destination": DOLLARS, "out": DOLLARS,
                    "spells": (("destination", "out"), np.eye(N) > 0),
                    "forced": (("destination", "out"), np.eye(N) > 0)}, ("destination", "out"))),
}  # fmt: skip
"Every plot that writes tokens."


@pytest.mark.parametrize("name", DRAWN)
def test_dollars_of_tokens_are_drawn_and_make_no_formula(name):
    figure = DRAWN[name]().figure
    figure.draw_without_rendering()
    written = [text.get_text() for text in figure.findobj(Text)]
    assert not any(map(is_math_text, written))
    assert {text.replace(r"\$", "$") for text in written} >= set(DOLLARS)
