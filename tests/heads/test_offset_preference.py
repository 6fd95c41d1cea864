import numpy as np
import pytest

from analyses import offset_preference as of_offsets
from circuits import GPT, GPTConfig
from circuits.decomposition import offsets
from circuits.ground_truth import RotaryInduction
from tests.conftest import ROTARY, tiny


def test_a_previous_token_head_prefers_offset_1_whatever_the_tokens_are():
    found = of_offsets.offset_preference(RotaryInduction(sharpness=6.0).model)
    assert found.values[0, 0] > 1e3 and found.offset.values[0, 0] == 1
    assert found.attrs["threshold"] == of_offsets.THRESHOLD < found.values[0, 0]
    assert found.values[1, 0] < 1e-6  # the induction head prefers no distance


def test_of_three_hundred_untrained_heads_not_three_prefer_an_offset():
    model = GPT(GPTConfig(n_layers=3, n_heads=100, d_model=64, d_head=16, d_vocab=96, n_ctx=48,
                          positional_embedding_type="rotary", init_range=0.2))  # fmt: skip
    found = of_offsets.offset_preference(model).values
    assert (found > of_offsets.THRESHOLD).sum() <= 3 and (found > 0).all()


def test_kernels_have_the_spread_over_tokens_beside_them():
    model = tiny(**ROTARY[0])
    found = of_offsets.kernels(model)
    assert np.allclose(found.values, offsets.kernel(model).detach())
    assert np.allclose(found.spread.values**2, offsets.variance(model).detach())
    best = found.argmax("offset")
    assert (of_offsets.offset_preference(model).offset.values == best.values).all()


def test_a_model_without_rotary_positions_or_with_one_position_is_refused():
    with pytest.raises(ValueError, match="only rotary positions"):
        of_offsets.offset_preference(tiny())
    with pytest.raises(ValueError, match="two offsets or more, and n_ctx=1"):
        of_offsets.offset_preference(tiny(**{**ROTARY[0], "n_ctx": 1}))
