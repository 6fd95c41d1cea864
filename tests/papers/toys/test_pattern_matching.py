"""Lines are spelled as in the paper, and equal attention has the share that is called chance."""

import torch

from analyses.papers.toys import pattern_matching
from circuits.data import CategoryLines


def test_lines_are_spelled_as_the_paper_spells_its_own():
    data = pattern_matching.lines(fixed=1.0)
    said = pattern_matching.words(data.batch(0, 1)[0])
    kinds = {word: kind for kind, words in pattern_matching.KINDS.items() for word in words.split()}
    labels = {("month", "animal"): "0", ("month", "fruit"): "1",
              ("colour", "animal"): "2", ("colour", "fruit"): "3"}  # fmt: skip
    for i in range(0, len(said), 5):
        first, second, colon, label, end = said[i : i + 5]
        assert label == labels[kinds[first], kinds[second]] and (colon, end) == (":", "\n")
    assert len(pattern_matching.VOCABULARY) == len(set(pattern_matching.VOCABULARY)) == 38


def test_equal_attention_has_the_share_that_is_called_chance():
    data = CategoryLines(lines=6, words=6)
    model = pattern_matching.transformer(data, n_layers=1)
    with torch.no_grad():
        model.blocks[0].attn.W_Q.zero_()
    score = pattern_matching.category_attention(model, data)
    # Equal attention, averaged before it is divided: later lines weigh more, by a little.
    assert abs(score.values - score.attrs["chance"]).max() < 0.05
    assert (score.looks.values > 0.05).all() and (score.looks.values < 0.25).all()
