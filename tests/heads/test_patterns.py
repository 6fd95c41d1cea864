"""Patterns that are captured are those of the run, with what they move."""

import numpy as np

from analyses import attention, patterns, prompts
from tests.conftest import tiny


def test_capture_holds_the_patterns_and_what_they_move():
    model = tiny()
    tokens = prompts.random_tokens(model, 6, batch=1)
    seen = patterns.capture(model, tokens)
    _, cache = model.run_with_cache(tokens)
    assert seen.dims == ("view", "layer", "head", "dest", "src")
    assert np.allclose(seen.sel(view="attention")[1], cache["pattern", 1][0])
    moved = attention.value_weighted(cache["pattern", 0], cache["v", 0])[0]
    assert np.allclose(seen.sel(view="moved")[0], moved)
