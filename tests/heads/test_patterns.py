"""Patterns that are captured are those of the run, with what they move."""

import numpy as np
import pytest
import torch

from analyses import attention, patterns, prompts
from tests.conftest import NORMS, tiny, tiny_tokens


def test_capture_holds_the_patterns_and_what_they_move():
    model = tiny()
    tokens = prompts.random_tokens(model, 6, batch=1)
    seen = patterns.capture(model, tokens)
    _, cache = model.run_with_cache(tokens)
    assert seen.dims == ("view", "layer", "head", "dest", "src")
    assert np.allclose(seen.sel(view="attention")[1], cache["pattern", 1][0])
    moved = attention.value_weighted(cache["pattern", 0], cache["v", 0])[0]
    assert np.allclose(seen.sel(view="moved")[0], moved)


@pytest.mark.parametrize("positions", ["standard", "shortformer"])
@pytest.mark.parametrize("norm", NORMS)
def test_positions_alone_give_the_pattern_of_tokens_that_are_all_alike(norm, positions):
    """Their common embedding adds to every key alike where no query asks for it: it is zero."""
    model = tiny(normalization_type=norm, positional_embedding_type=positions, bias=False)
    with torch.no_grad():
        model.W_E.zero_()
    tokens = tiny_tokens(batch=1)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    found = patterns.from_positions(model, tokens.shape[1])
    assert found.dims == ("head", "dest", "src")
    assert np.allclose(found, cache["pattern", 0][0], atol=1e-6)


def test_a_large_token_leaves_positions_less_to_say_behind_a_norm_alone():
    even = 1 / np.arange(1, 8)[:, None] * np.tril(np.ones((7, 7)))
    for norm, closer in (("LN", True), (None, False)):
        model = tiny(normalization_type=norm, bias=False)
        before = np.abs(patterns.from_positions(model, 7) - even).max()
        with torch.no_grad():
            model.W_E.mul_(100)
        after = np.abs(patterns.from_positions(model, 7) - even).max()
        assert (after < 0.1 * before) == closer


def test_positions_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="the model has no"):
        patterns.from_positions(tiny(positional_embedding_type="none"), 3)
    with pytest.raises(ValueError, match="positions 1 to 16, got length=17"):
        patterns.from_positions(tiny(), 17)
