"""An ideal induction head has ideal scores, and the loss falls at the repeat as it must."""

import numpy as np
import pytest

from analyses import induction, prompts
from circuits import ground_truth

EXACT = {"abs": 1e-9, "rel": 0}
CLOSE = {"abs": 1e-6, "rel": 0}


@pytest.mark.parametrize("d_vocab", [6, 12, 20])
def test_an_ideal_induction_head_has_the_perfect_stripe_in_a_small_vocabulary(d_vocab):
    stripe = induction.stripe(ground_truth.Induction(d_vocab).model)
    assert stripe.values[:, 0] == pytest.approx([0, stripe.attrs["perfect"]], **EXACT)
    assert stripe.attrs["perfect"] == d_vocab / (d_vocab + 1)


@pytest.mark.parametrize("d_vocab", [25, 26, 40])
def test_an_ideal_induction_head_copies_all_of_the_little_that_it_sees_or_has_no_score(d_vocab):
    found = induction.copying(ground_truth.Induction(d_vocab).model)
    assert found.values[1, 0] == pytest.approx(1, **EXACT)
    rounded = induction.copying(ground_truth.Induction(d_vocab, sharpness=1000.0).model.float())
    assert np.isnan(rounded[1, 0]) if d_vocab > 25 else rounded[1, 0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("d_vocab", "gain", "rest"), [(20, 12.0, 0.5), (11, 5.0, 0.25), (30, 9.0, 0.8)]
)
def test_losses_before_and_after_the_repeat_are_the_closed_forms(d_vocab, gain, rest):
    answers = ground_truth.Induction(d_vocab, gain=gain, rest=rest)
    model = answers.model
    loss = induction.loss_by_position(model, prompts.repeated(model, d_vocab - 1)).mean("example")
    before = loss.where(loss.pos < loss.attrs["repeat"], drop=True)
    after = loss.where(loss.pos >= loss.attrs["repeat"], drop=True)
    assert before.values == pytest.approx(answers.loss_before_repeat, **CLOSE)
    assert after.values == pytest.approx(answers.loss_after_repeat, **CLOSE)
    if d_vocab == 20:
        assert answers.loss_before_repeat == pytest.approx(2.99573, abs=1e-5)
        assert answers.loss_after_repeat == pytest.approx(1.16733e-4, abs=1e-9)
