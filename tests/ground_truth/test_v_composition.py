"""The virtual head does what its closed forms say, for sizes drawn at random."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses import attention, copying, prompts
from circuits import algebra, ground_truth
from tests.ground_truth.closed_forms import EXACT, compositions, few, logits_by_order, losses


@few
@given(st.integers(3, 24), st.floats(0.5, 15.0))
def test_the_virtual_head_alone_predicts_the_token_two_back(d_vocab, gain):
    answers = ground_truth.VirtualHead(d_vocab, 40, gain=gain)
    model = answers.model
    tokens = prompts.random_tokens(model, 30)
    logits = model(tokens)
    assert (logits[:, 2:].argmax(-1) == tokens[:, :-2]).all()
    orders = logits_by_order(model, tokens)
    marginal = [orders[0], orders[1] - orders[0], orders[2] - orders[1]]
    largest = [logits.abs().max().item() for logits in marginal]
    assert largest == pytest.approx(answers.largest_logit_by_order, **EXACT)
    assert torch.allclose(orders[2], logits, atol=1e-9)
    in_threes = torch.arange(39)[None] % 3
    loss = losses(model, in_threes)[:, 2:]
    assert loss.numpy() == pytest.approx(answers.loss_of_period_three, **EXACT)


@few
@given(st.integers(2, 24), st.floats(0.5, 15.0))
def test_the_virtual_heads_pattern_and_circuit_are_the_closed_forms(d_vocab, gain):
    answers = ground_truth.VirtualHead(d_vocab, 40, gain=gain)
    model = answers.model
    tokens = prompts.random_tokens(model, 30)
    assert attention.previous_token(model, tokens).values == pytest.approx(1.0, **EXACT)
    _, cache = model.run_with_cache(tokens)
    virtual = cache["pattern", 1][:, 0] @ cache["pattern", 0][:, 0]
    two_back = virtual.diagonal(-2, 1, 2)
    assert two_back.numpy() == pytest.approx(answers.two_back, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )
    OV = model.W_E @ (model.OV[0, 0] @ model.OV[1, 0]) @ model.W_U
    assert float(OV.trace()) == pytest.approx(answers.virtual_ov_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.virtual_ov_positivity, **EXACT)
    assert (answers.own_ov == algebra.full_OV(model).AB).all()
    assert (answers.direct_path == model.W_E @ model.W_U).all()
