"""The bug of skip-trigrams is exact, and its circuits hold nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses import copying
from circuits import algebra, ground_truth
from circuits.ground_truth import AT, BAY, BOS, IN, KEEP, MIND
from tests.ground_truth.closed_forms import EXACT, few, losses


@few
@given(st.integers(6, 24), st.floats(0.5, 15.0))
def test_the_skip_trigram_bug_is_exact(d_vocab, gain):
    answers = ground_truth.SkipTrigramBug(d_vocab, gain=gain)
    model = answers.model
    for source, destination, out in (*answers.meant, *answers.bugs):
        tokens = torch.tensor([[BOS, MIND, source, BAY, destination, out]])
        logits = model(tokens)[0, -2]
        assert logits[out].item() == pytest.approx(answers.gain, **EXACT)
        assert logits.sum().item() == pytest.approx(2 * answers.gain, **EXACT)
        assert losses(model, tokens)[0, -1].item() == pytest.approx(answers.loss, **EXACT)
    assert logits[MIND] == logits[BAY]


def test_skip_trigrams_are_entries_of_the_circuits_and_say_nothing_elsewhere():
    answers = ground_truth.SkipTrigramBug()
    model = answers.model
    QK, OV = algebra.full_QK(model)[0, 0].AB, algebra.full_OV(model)[0, 0]
    expected_QK, expected_OV = torch.zeros_like(QK), torch.zeros_like(QK)
    expected_QK[[IN, AT], KEEP] = answers.sharpness
    expected_QK[:, BOS] = answers.rest * answers.sharpness
    expected_OV[KEEP, [MIND, BAY]] = answers.gain
    assert torch.allclose(QK, expected_QK) and torch.allclose(OV.AB, expected_OV)
    assert (answers.sharpness, answers.gain) == (60, 5)
    assert copying.positivity(OV).item() == pytest.approx(answers.ov_positivity, **EXACT)
    without = torch.tensor([[BOS, IN, MIND, AT, BAY, KEEP, MIND, BAY, KEEP]])
    loss = losses(model, without).numpy()
    assert loss == pytest.approx(answers.loss_elsewhere, **EXACT)
