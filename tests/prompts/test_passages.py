"""Texts of ours as tokens: the beginnings, BOS first, as long as fits."""

import pytest

from analyses import passages
from circuits import load
from tests.conftest import tiny


def test_passages_are_cut_to_what_all_have_and_the_context_takes():
    model = load("attn-only-2l")
    tokens = passages.tokens(model)
    assert tokens.shape[0] == len(passages.NAMES) and 150 < tokens.shape[1] <= model.cfg.n_ctx
    assert (tokens[:, 0] == model.to_tokens("")[0, 0]).all()
    for name, row in zip(passages.NAMES, tokens, strict=True):
        assert passages.passage(name).startswith(model.to_string(row[1:]))
    assert passages.tokens(model, 9).equal(tokens[:, :9])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="has no tokenizer"):
        passages.tokens(tiny())
    with pytest.raises(ValueError, match="cut to 1 to"):
        passages.tokens(load("attn-only-2l"), 257)
    with pytest.raises(KeyError, match="no passage 'poem'; there are"):
        passages.passage("poem")
