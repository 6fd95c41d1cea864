"""Texts of ours as tokens: the beginnings, BOS first, as long as fits."""

import pytest
import torch

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


def test_held_out_windows_are_pieces_of_documents_that_the_models_were_not_trained_on():
    model = load("attn-only-2l")
    windows = passages.held_out(model)
    assert windows.shape[1] == 192 and len(windows) > 200
    assert (windows[:, 0] == model.bos).all() and (windows[:, 1:] != model.bos).all()
    assert len(set(map(tuple, windows.tolist()))) == len(windows)
    with torch.no_grad():
        loss = model(windows, return_type="loss").item()
    assert 3 < loss < 4.5  # and 7.6 for a model that knows nothing
    for length in (1, 999):
        with pytest.raises(ValueError, match="a window has 2 to"):
            passages.held_out(model, length)
    with pytest.raises(ValueError, match="no tokenizer"):
        passages.held_out(tiny())
