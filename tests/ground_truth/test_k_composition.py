"""Induction by K-composition does what its closed forms say, for sizes drawn at random."""

import pytest
import torch
from hypothesis import given

from analyses import attention, copying, induction
from circuits import algebra, ground_truth
from tests.ground_truth.closed_forms import (
    EXACT,
    compositions,
    few,
    kept,
    losses,
    losses_by_order,
    said_twice,
    second_half,
    sizes,
)


def silent(*layers: int) -> list:
    return [(f"blocks.{i}.attn.hook_z", lambda z, hook: torch.zeros_like(z)) for i in layers]


@few
@given(sizes)
def test_induction_scores_and_losses_are_the_closed_forms(arguments):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    loss, half = losses(model, tokens), model.cfg.d_vocab
    assert loss[:, :half].numpy() == pytest.approx(answers.loss_before_repeat, **EXACT)
    assert loss[:, half:].numpy() == pytest.approx(answers.loss_after_repeat, **EXACT)
    previous, prefix = attention.previous_token(model), attention.prefix_matching(model)
    assert previous.values[0, 0] == pytest.approx(answers.previous_token, **EXACT)
    assert prefix.values[1, 0] == pytest.approx(answers.prefix_matching, **EXACT)
    assert compositions(model) == pytest.approx(
        {"q": answers.q_composition, "k": answers.k_composition, "v": answers.v_composition},
        **EXACT,
    )


@few
@given(sizes)
def test_induction_circuits_have_the_eigenvalues_and_traces_of_the_closed_forms(arguments):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    OV, QK = algebra.full_OV(model)[1, 0], algebra.K_composed_QK(model, 1, 0)[0, 0]
    assert float(OV.trace()) == pytest.approx(answers.ov_trace, **EXACT)
    assert float(QK.trace()) == pytest.approx(answers.qk_trace, **EXACT)
    assert copying.positivity(OV).item() == pytest.approx(answers.ov_positivity, **EXACT)
    assert copying.positivity(QK).item() == pytest.approx(answers.qk_positivity, **EXACT)
    assert induction.copying(model).values[1, 0] == pytest.approx(answers.copying, **EXACT)
    others = OV.AB - OV.AB.diag().diag()
    top1 = (OV.AB.diag() > others.amax(-1)).double().mean().item()
    assert top1 == pytest.approx(answers.ov_top1, **EXACT)
    virtual = model.W_E @ model.OV[0, 0].AB @ model.OV[1, 0].AB @ model.W_U
    assert (virtual == answers.virtual_head).all()
    assert (answers.direct_path == model.W_E @ model.W_U).all()


@few
@given(sizes)
def test_induction_is_done_by_paths_of_one_head_and_patterns(arguments):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    by_order = losses_by_order(model, said_twice(model))
    assert by_order == pytest.approx(answers.loss_by_order, **EXACT)


@few
@given(sizes)
def test_ablating_the_previous_token_head_costs_all_or_nothing_by_whether_patterns_are_kept(
    arguments,
):
    answers = ground_truth.Induction(**arguments)
    model = answers.model
    tokens = said_twice(model)
    keep = kept(model, tokens)
    for layer, hooks, loss in (
        (0, [], answers.loss_without_previous),
        (0, keep, answers.loss_without_previous_patterns_kept),
        (1, [], answers.loss_without_induction),
        (1, keep, answers.loss_without_induction),
    ):
        after = second_half(losses(model, tokens, [*silent(layer), *hooks]))
        assert after.numpy() == pytest.approx(loss, **EXACT)
