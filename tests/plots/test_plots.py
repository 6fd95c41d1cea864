"""Plots have labels that are right and do not overlap."""

import math

import numpy as np
import pytest
import torch
from matplotlib.cbook import is_math_text
from matplotlib.text import Text
from pandas import DataFrame
from xarray import DataArray

from analyses import plots
from analyses.labelled import of_parts, per_head
from circuits.decomposition import Parts

WORDS = ["<|endoftext|>", *[" pg,"[: 1 + i % 4] * (1 + i % 3) for i in range(127)]]
EIGENVALUES = per_head(torch.randn(1, 2, 5) + 1j, "eigenvalues", "eigenvalue")
STEPS = DataArray(
    np.arange(6.0).reshape(3, 2),
    dims=("step", "head"),
    coords={"step": [0, 1, 2], "tokens": ("step", [0, 10**6, 2 * 10**6])},
)


@pytest.mark.parametrize(("n", "heads", "every"), [(22, 2, 1), (100, 4, 5)])
def test_tokens_along_attention_are_whole_and_apart_however_many(n, heads, every):
    axes = plots.attention(torch.rand(heads, n, n), WORDS[:n])
    axes[0, 0].figure.draw_without_rendering()
    for labels, across in ((axes[-1, 0].get_xticklabels(), 0), (axes[-1, 0].get_yticklabels(), 1)):
        shown = [label.get_text() for label in labels]
        assert shown == [plots.show_token(word) for word in WORDS[:n:every]]
        boxes = np.array([label.get_window_extent().get_points() for label in labels])
        starts, ends = np.sort(boxes[:, 0, across]), np.sort(boxes[:, 1, across])
        assert (ends[:-1] <= starts[1:]).all() and (boxes >= 0).all()


def test_tokens_of_fewer_destinations_are_the_last_and_others_are_refused():
    corner = plots.attention(torch.rand(1, 2, 4), list("abcd"))[0, 0]
    assert [label.get_text() for label in corner.get_yticklabels()] == ["c", "d"]
    with pytest.raises(ValueError, match="3 tokens for a pattern of 4 sources"):
        plots.attention(torch.rand(1, 4, 4), list("abc"))


def test_bars_say_what_chance_is_and_only_where_it_is_known():
    scores = per_head(torch.tensor([[0.5, -0.2]]), "score", bounds=(-1.0, 1.0), chance=0.25)
    labels = plots.bars(scores, control=scores).get_legend_handles_labels()[1]
    assert labels == ["at initialisation", "chance: 0.25", "layer 0"]
    del scores.attrs["chance"], scores.attrs["bounds"]
    assert plots.bars(scores).get_legend_handles_labels()[1] == ["layer 0"]


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


def test_eigenvalues_are_those_of_one_head_and_have_its_name():
    assert plots.eigenvalues(EIGENVALUES[0, 1]).get_title() == "L0H1"
    assert plots.eigenvalues(EIGENVALUES[0, 1], title="mine").get_title() == "mine"
    assert plots.eigenvalues(torch.ones(3)).get_title() == ""
    with pytest.raises(ValueError, match=r"eigenvalues of one matrix, got \[1, 2, 5\]"):
        plots.eigenvalues(EIGENVALUES)


def test_parts_are_drawn_by_their_labels_and_say_what_they_miss():
    stack = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    parts = Parts(["embed", "L0H0"], stack, stack.sum(0) + torch.tensor([0.0, 0.25]))
    shown = of_parts(parts, "pos", long_name="logit")
    assert shown.dims == ("part", "pos") and np.array_equal(shown, stack)
    assert shown.attrs == {"long_name": "logit", "remainder": 0.25}
    labels = plots.heatmap(shown).get_yticklabels()
    assert [label.get_text() for label in labels] == ["embed", "L0H0"]
    with pytest.raises(ValueError, match=r"whole \[2\] need 1 dims after part, got \[\]"):
        of_parts(parts)


def test_lines_over_training_have_a_name_each_or_none():
    for names in (["a", "b"], ("a", "b"), np.array(["a", "b"])):
        assert plots.over_training(STEPS, names=names).get_legend_handles_labels()[1] == ["a", "b"]
    one = plots.over_training(STEPS[:, 0], names="alone")
    assert one.get_legend_handles_labels()[1] == ["alone"]
    assert plots.over_training(STEPS).get_legend_handles_labels()[1] == []
    with pytest.raises(ValueError, match=r"1 names for 2 lines: \['alone'\]"):
        plots.over_training(STEPS, names="alone")


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
