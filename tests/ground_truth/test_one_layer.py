"""Circuits of one layer, and of the statistics of the context: what closed forms say, runs do."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses import attention, copying
from circuits import algebra, ground_truth
from circuits.ground_truth import AT, BAY, BOS, IN, KEEP, MIND
from tests.conftest import tiny_tokens
from tests.ground_truth.test_two_layers import EXACT, few, losses, said_twice, sizes

# --- one layer ------------------------------------------------------------------------------------


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


# --- statistics of the context --------------------------------------------------------------------


@few
@given(st.integers(2, 6), st.floats(0.5, 15.0), st.integers(0, 99))
def test_statistical_induction_says_the_frequencies_of_what_followed(d_vocab, gain, seed):
    circuit = ground_truth.StatisticalInduction(d_vocab, 40, gain=gain)
    tokens = tiny_tokens(batch=4, pos=40, d_vocab=d_vocab, seed=seed)
    assert torch.allclose(circuit.model(tokens), circuit.logits(tokens), atol=1e-6)
    row, at = tokens[0].tolist(), 30
    before = [row[0], *row[:-1]]
    followed = [row[j] for j in range(at + 1) if before[j] == row[at]]
    heard = followed or row[: at + 1]
    shares = [heard.count(token) / len(heard) for token in range(d_vocab)]
    assert circuit.matches(tokens)[0, at] == len(followed)
    assert circuit.frequencies(tokens)[0, at].tolist() == pytest.approx(shares)


def test_statistical_induction_is_edelmans_minimal_model_over_the_number_of_matches():
    """logits_i = sum_(j<=i) (e_i W u_j) e_j, u = softmax(v_(i-j)) e, with v at lag 1 and W = Id."""
    tokens = tiny_tokens(batch=4, pos=40, d_vocab=3)
    circuit = ground_truth.StatisticalInduction(3, 40, gain=1.0)
    model, matches = circuit.model, circuit.matches(tokens)
    e = torch.nn.functional.one_hot(tokens, 3).double()
    lag = torch.arange(40)[:, None] - torch.arange(40)
    v = torch.where(lag == 1, 100.0, 0.0).masked_fill(lag < 0, -math.inf).double()
    minimal = (e @ (v.softmax(-1) @ e).mT).tril() @ e
    matched = matches > 0
    counted = model(tokens) * matches[..., None]
    assert torch.allclose(counted[matched], minimal[matched], atol=1e-6)
    assert minimal[~matched].abs().max() < 1e-6
    _, cache = model.run_with_cache(tokens)
    assert torch.allclose(cache["pattern", 0][:, 0], v.softmax(-1), atol=1e-12)
