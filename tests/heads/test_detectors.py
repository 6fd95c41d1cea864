"""No detector finds a head in an untrained model of the shape that ships."""

import dataclasses
import math

import pytest

from analyses import attention, copying, induction, prompts
from circuits import GPT, load


@pytest.mark.parametrize("seed", range(8))  # and small ones in tests/laws/test_silence.py
def test_an_untrained_model_of_the_shipped_shape_has_no_head_above_any_threshold(seed):
    model = GPT(dataclasses.replace(load("attn-only-2l").cfg, seed=seed)).eval()
    assert (attention.taxonomy(model).role.values == "-").all()
    assert float(copying.score(model).max()) < 0.5
    assert float(induction.copying(model).max()) < 0.2
    assert abs(induction.repeat_gain(model)) < 0.02
    loss = induction.loss_by_position(model, prompts.repeated(model, batch=4))
    assert float(loss.mean()) == pytest.approx(math.log(2048), abs=0.1)
