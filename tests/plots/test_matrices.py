"""Patterns and eigenvalues are drawn with labels that are right and do not overlap."""

import numpy as np
import pytest
import torch

from analyses import plots
from analyses.labelled import per_head

WORDS = ["<|endoftext|>", *[" pg,"[: 1 + i % 4] * (1 + i % 3) for i in range(127)]]
EIGENVALUES = per_head(torch.randn(1, 2, 5) + 1j, "eigenvalues", "eigenvalue")


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


def test_eigenvalues_are_those_of_one_head_and_have_its_name():
    assert plots.eigenvalues(EIGENVALUES[0, 1]).get_title() == "L0H1"
    assert plots.eigenvalues(EIGENVALUES[0, 1], title="mine").get_title() == "mine"
    assert plots.eigenvalues(torch.ones(3)).get_title() == ""
    with pytest.raises(ValueError, match=r"eigenvalues of one matrix, got \[1, 2, 5\]"):
        plots.eigenvalues(EIGENVALUES)
