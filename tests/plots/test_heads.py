"""Bars of heads say what chance is, and only where it is known."""

import torch

from analyses import plots
from analyses.labelled import per_head


def test_bars_say_what_chance_is_and_only_where_it_is_known():
    scores = per_head(torch.tensor([[0.5, -0.2]]), "score", bounds=(-1.0, 1.0), chance=0.25)
    labels = plots.bars(scores, control=scores).get_legend_handles_labels()[1]
    assert labels == ["at initialisation", "chance: 0.25", "layer 0"]
    del scores.attrs["chance"], scores.attrs["bounds"]
    assert plots.bars(scores).get_legend_handles_labels()[1] == ["layer 0"]
