"""Scores of long contexts: those of the patterns, without a pattern."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from analyses import attention, long_context, patterns, prompts
from analyses.heads.masks import BEHAVIOURS, to_successors
from circuits import ground_truth
from circuits.model import masked_scores
from tests.conftest import tiny

TOLERANCE = {"atol": 1e-10, "rtol": 0}


class Largest(TorchDispatchMode):
    """How many entries the largest tensor has that any operation makes, the model's own too."""

    def __init__(self):
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.entries = max(self.entries, one.untyped_storage().nbytes() // one.itemsize)
        return made


def test_in_blocks_every_score_is_that_of_the_patterns(variant):
    tokens = prompts.random_tokens(variant, 5, times=3, batch=3)
    block = {"block_bytes": 5000}  # four destinations at a time
    found = long_context.behaviours(variant, tokens, **block)
    assert found.behaviour.values.tolist() == list(BEHAVIOURS)
    for i, name in enumerate(BEHAVIOURS):
        whole, one = attention.behaviour(variant, tokens, name=name), found[..., i]
        assert np.allclose(one, whole, **TOLERANCE)
        assert np.allclose(one.low, whole.low, **TOLERANCE)
        if variant.cfg.n_layers:
            assert float(one.chance) == pytest.approx(whole.attrs["chance"])
    spread = long_context.entropy(variant, tokens, **block)
    assert np.allclose(spread, patterns.entropy(variant, tokens), **TOLERANCE)


@pytest.mark.parametrize("block_bytes", [1, 1500, 2**20])  # one destination, some, all
def test_blocks_of_any_size_cover_every_destination_once(block_bytes):
    q, k = torch.randn(2, 2, 9, 3, 5, dtype=torch.float64)
    seen = list(long_context.score_blocks(q, k, block_bytes))
    assert [i for part, _ in seen for i in range(part.start, part.stop)] == list(range(9))
    whole = masked_scores(q, k, 1.0)
    for part, scores in seen:
        assert torch.allclose(scores, whole[:, :, part, : part.stop])


def test_at_8192_tokens_no_tensor_grows_with_the_square_of_the_context():
    """Smeared induction far beyond its default context: it finds every match, in closed form."""
    n, rows = 8192, 128
    model = ground_truth.SmearedInduction(12, n).model
    tokens = prompts.random_tokens(model, n - 1, batch=1)
    masks = {"induction": to_successors}
    with Largest() as largest:
        found = long_context.behaviours(model, tokens, masks=masks, block_bytes=8 * rows * n)
    assert found.item() == pytest.approx(1, abs=1e-9)
    assert largest.entries == rows * n < n * n / 50


def test_the_watch_sees_a_pattern_where_there_is_one():
    n = 64
    model = tiny(n_ctx=n)
    tokens = prompts.random_tokens(model, n - 1, batch=1)
    with Largest() as largest:
        attention.previous_token(model, tokens)
    assert largest.entries >= 3 * n * n
    with Largest() as largest:
        long_context.behaviours(model, tokens, block_bytes=2**14)
    assert largest.entries < n * n


def test_positions_with_which_a_score_is_no_product_are_refused():
    model = tiny()
    model.cfg = dataclasses.replace(model.cfg)
    object.__setattr__(model.cfg, "positional_embedding_type", "alibi")
    with pytest.raises(ValueError, match="with alibi positions a score is not"):
        long_context.behaviours(model, torch.arange(5)[None])


def test_a_mask_that_finds_nothing_has_no_score():
    found = long_context.behaviours(tiny(), torch.arange(5)[None])
    assert found.sel(behaviour="induction").isnull().all()
    assert found.sel(behaviour="first token").notnull().all()
