"""Smeared keys do induction in one layer, as their closed forms say."""

import pytest
import torch
from hypothesis import given

from analyses import attention, copying
from circuits import algebra, ground_truth
from tests.ground_truth.closed_forms import EXACT, few, losses, said_twice, sizes


@few
@given(sizes)
def test_smeared_keys_do_induction_in_one_layer_and_smear_where_heads_rest(arguments):
    answers = ground_truth.SmearedInduction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    loss, n = losses(model, tokens), model.cfg.d_vocab - 1
    assert loss[:, 0].numpy() == pytest.approx(answers.loss_of_first, **EXACT)
    assert loss[:, 1:n].numpy() == pytest.approx(answers.loss_before_repeat, **EXACT)
    assert loss[:, n].numpy() == pytest.approx(answers.loss_of_first_again, **EXACT)
    assert loss[:, n + 1 :].numpy() == pytest.approx(answers.loss_after_repeat, **EXACT)
    prefix = attention.prefix_matching(model).values[0, 0]
    assert prefix == pytest.approx(answers.prefix_matching, **EXACT)
    _, cache = model.run_with_cache(tokens[:, : n + 1])
    rest = cache["pattern", 0][:, 0, 1:, :2].mean((0, 1)).tolist()
    assert rest == pytest.approx([answers.rest_on_bos, answers.rest_on_first], **EXACT)
    assert cache["pattern", 0][:, 0, 1:, :2].sum(-1).numpy() == pytest.approx(1, **EXACT)


@few
@given(sizes)
def test_smeared_inductions_circuits_are_the_closed_forms(arguments):
    answers = ground_truth.SmearedInduction(**arguments)
    model = answers.model
    OV, QK = algebra.full_OV(model)[0, 0], algebra.full_QK(model)[0, 0]
    assert float(OV.trace()) == pytest.approx(answers.ov_trace, **EXACT)
    assert float(QK.trace()) == pytest.approx(answers.qk_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.ov_positivity, **EXACT)


def test_a_smeared_key_is_exactly_the_one_before_in_every_float_type():
    alpha = ground_truth.SmearedInduction().model.blocks[0].attn.alpha
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert (alpha.to(dtype).sigmoid() == 0).all() and torch.isfinite(alpha.to(dtype)).all()
