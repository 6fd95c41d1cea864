"""The framework's exercises, built: what they ask for, they do."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses import attention, prompts
from circuits import ground_truth
from circuits.ground_truth import BOS
from tests.ground_truth.closed_forms import (
    EXACT,
    compositions,
    few,
    losses,
    said_twice,
    second_half,
)


def test_exercise_1_copies_seven_dims_of_one_token_and_one_of_two():
    answers = ground_truth.VirtualHeadExercise()
    model = answers.model
    first, second = model.OV[0, 0].AB, model.OV[1, 0].AB
    assert (model.cfg.d_model, model.cfg.d_head) == (16, 4)
    for matrix, pairs in (
        (first + second, answers.one_token_copy),
        (first @ second, answers.two_token_copy),
    ):
        expected = torch.zeros(16, 16, dtype=torch.float64)
        expected[tuple(zip(*pairs, strict=True))] = 1
        assert torch.equal(matrix, expected)
    assert compositions(model)["v"] == pytest.approx(answers.v_composition, **EXACT)
    assert attention.previous_token(model).values == pytest.approx(1, **EXACT)
    tokens = prompts.random_tokens(model, 31)
    expected = torch.nn.functional.one_hot(tokens, 8).double().roll(1, 1)
    expected[:, 2:, 1] += (tokens[:, :-2] == 1).double()
    expected[..., BOS] = 0
    assert torch.allclose(model(tokens)[:, 1:], answers.gain * expected[:, 1:], atol=1e-6)


@pytest.mark.parametrize("name", ["PointerInductionExercise", "InductionExercise"])
@few
@given(gain=st.floats(0.5, 15.0), sharpness=st.floats(40.0, 200.0))
def test_exercises_2_and_3_are_induction_heads_with_the_losses_of_a_cube(name, gain, sharpness):
    answers = getattr(ground_truth, name)(gain=gain, sharpness=sharpness)
    model = answers.model
    tokens = said_twice(model)
    after = second_half(losses(model, tokens))
    assert after.numpy() == pytest.approx(answers.loss_after_repeat, **EXACT)
    prefix = attention.prefix_matching(model).values[1, 0]
    assert prefix == pytest.approx(answers.prefix_matching, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )
    assert model.cfg.d_model == 16


def test_the_exercises_heads_have_their_roles():
    roles = attention.taxonomy(ground_truth.PointerInductionExercise().model).role
    assert roles.values.tolist() == [["duplicate token"], ["induction"]]
    roles = attention.taxonomy(ground_truth.InductionExercise().model).role
    assert roles.values.tolist() == [["previous token"], ["induction"]]
