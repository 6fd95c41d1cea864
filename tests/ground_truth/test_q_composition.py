"""Induction by pointers does what its closed forms say, for sizes drawn at random."""

import pytest
import torch
from hypothesis import given

from analyses import attention, copying
from circuits import algebra, ground_truth
from tests.ground_truth.closed_forms import (
    EXACT,
    compositions,
    few,
    losses,
    losses_by_order,
    said_twice,
    sizes,
)


@few
@given(sizes)
def test_pointer_induction_scores_and_losses_are_the_closed_forms(arguments):
    answers = ground_truth.PointerInduction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    loss, half = losses(model, tokens), model.cfg.d_vocab
    assert loss[:, :half].numpy() == pytest.approx(answers.loss_before_repeat, **EXACT)
    assert loss[:, half:].numpy() == pytest.approx(answers.loss_after_repeat, **EXACT)
    assert losses_by_order(model, tokens) == pytest.approx(answers.loss_by_order, **EXACT)
    duplicate = attention.duplicate_token(model, tokens).values[0, 0]
    assert duplicate == pytest.approx(answers.duplicate_token, **EXACT)
    prefix = attention.prefix_matching(model, tokens).values[1, 0]
    assert prefix == pytest.approx(answers.prefix_matching, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )
    OV = algebra.full_OV(model)[1, 0]
    assert float(OV.trace()) == pytest.approx(answers.ov_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.ov_positivity, **EXACT)
    assert (answers.direct_path == model.W_E @ model.W_U).all()
    virtual = model.W_E @ model.OV[0, 0].AB @ model.OV[1, 0].AB @ model.W_U
    assert (virtual == answers.virtual_head).all()


def test_pointers_to_several_copies_are_followed_while_each_outweighs_rest():
    tokens = torch.tensor([[0, *([1, 2, 3, 4, 5] * 4)]])
    light = ground_truth.PointerInduction(sharpness=500.0, rest=0.05).model
    assert attention.prefix_matching(light, tokens).values[1, 0] == pytest.approx(1, **EXACT)
    heavy = ground_truth.PointerInduction(sharpness=500.0, rest=0.4).model
    assert attention.prefix_matching(heavy, tokens).values[1, 0] < 0.7
