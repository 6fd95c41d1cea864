"""Scores of heads are closed forms on hand-built circuits, and chance where heads are uniform."""

import math

import numpy as np
import pytest
import torch
import xarray

from analyses import attention, copying, in_context, induction, patterns, prompts
from circuits import GPT, algebra, ground_truth
from circuits.ground_truth import AT, BOS, IN, KEEP
from circuits.matrices import FactoredMatrix
from tests.conftest import tiny
from tests.model.test_gpt import native_bridge

EXACT = {"abs": 1e-9, "rel": 0}
CLOSE = {"abs": 1e-6, "rel": 0}
ANSWERS = ground_truth.Induction()


def distinct(model: GPT, length: int) -> torch.Tensor:
    """BOS and `length` tokens with none said twice."""
    assert length < model.cfg.d_vocab
    return prompts.random_tokens(model, length, batch=3)


def uniform(model: GPT) -> GPT:
    """The model with every head attending alike to all that it sees."""
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
            block.attn.b_Q.zero_()
    return model


def test_induction_by_k_composition_has_every_score_in_closed_form():
    answers = ground_truth.Induction()
    model = answers.model
    once = distinct(model, 19)
    back, match = attention.positional(model), induction.stripe(model, prompts.repeated(model, 19))
    assert float(back[0, 0]) == pytest.approx(answers.previous_token, **EXACT)
    assert int(back.offset[0, 0]) == int(patterns.fixed_offset(model).offset[0, 0]) == 1
    assert float(patterns.fixed_offset(model)[0, 0]) == 1
    assert patterns.entropy(model, once).values == pytest.approx(0, **EXACT)
    assert match.values[:, 0] == pytest.approx([0, 20 / 21], **EXACT)
    assert match.attrs["perfect"] == 20 / 21
    first = attention.first_token(model, once)[:, 0]
    assert first.values == pytest.approx([1 / 19, answers.rest_on_bos], **EXACT)
    assert patterns.sink(model, once)[:, 0].values.tolist() == [0, 1]
    moved = patterns.moved_from_first(model, once)[:, 0]
    assert moved.values == pytest.approx([1 / 19, answers.moved_from_bos], **EXACT)
    assert induction.qk_trace(model).values[:, 0] == pytest.approx([0, answers.qk_trace])
    assert induction.copying(model).values[1, 0] == pytest.approx(answers.copying, **EXACT)
    harmonic = sum(1 / (i + 1) for i in range(19)) / 19  # where nothing matches it sees all alike
    output = induction.output_copying(model, prompts.random_tokens(model, 19)[:, 1:])
    assert output.values[:, 0] == pytest.approx([0, harmonic], **EXACT)


def test_induction_by_pointers_has_every_score_in_closed_form():
    answers = ground_truth.PointerInduction()
    model = answers.model
    once, twice = distinct(model, 31), prompts.repeated(model, 31)
    duplicate = attention.duplicate_token(model, twice).values
    assert duplicate[:, 0] == pytest.approx([answers.duplicate_token, 0], **EXACT)
    prefix = attention.prefix_matching(model, twice).values
    assert prefix[:, 0] == pytest.approx([0, answers.prefix_matching], **EXACT)
    # The duplicate head is one entry off the stripe, but for the rest on BOS.
    stripe = induction.stripe(model, prompts.repeated(model, 31))
    assert stripe.values[:, 0] == pytest.approx([1 / 33, stripe.attrs["perfect"]], **EXACT)
    assert attention.first_token(model, once).values == pytest.approx(1, **EXACT)
    assert patterns.entropy(model, once).values == pytest.approx(0, **EXACT)
    assert patterns.sink(model, once).values.tolist() == [[1], [1]]
    assert induction.qk_trace(model).values.tolist() == [[0], [0]]


def test_the_two_heads_of_the_virtual_head_look_one_back_and_nothing_else():
    answers = ground_truth.VirtualHead()
    model = answers.model
    found = attention.positional(model)
    assert found.values == pytest.approx(answers.previous_token, **EXACT)
    assert (found.offset == 1).all() and (patterns.fixed_offset(model) == 1).all()
    assert patterns.entropy(model).values == pytest.approx(0, **EXACT)
    assert induction.stripe(model, prompts.repeated(model, 19)).values == pytest.approx(0, **EXACT)
    assert attention.current_token(model).values == pytest.approx(0, **EXACT)
    assert (attention.taxonomy(model).role == "previous token").all()


def test_the_skip_trigram_head_looks_at_what_it_keeps_and_else_rests():
    model = ground_truth.SkipTrigramBug().model
    tokens = torch.tensor([[BOS, KEEP, 9, 8, IN], [BOS, 9, KEEP, 7, AT]])
    asks = ((tokens == IN) | (tokens == AT))[:, :, None] & (tokens == KEEP)[:, None, :]
    kept = attention.attention_on(model, tokens, asks, "kept", "attention to keep")
    assert kept.item() == pytest.approx(1, **EXACT)
    rests = attention.first_token(model, tokens[:, :-1])
    assert rests.item() == pytest.approx(1, **EXACT)
    assert patterns.moved_from_first(model, tokens).item() == pytest.approx(0, **EXACT)
    assert patterns.sink(model, tokens).item() == 1
    assert patterns.entropy(model, tokens).item() == pytest.approx(0, **EXACT)


def test_smeared_induction_has_every_score_in_closed_form():
    model = ground_truth.SmearedInduction().model
    answers, once = ground_truth.SmearedInduction(), distinct(model, 19)
    prefix = attention.prefix_matching(model, prompts.repeated(model, 19))
    assert prefix.item() == pytest.approx(answers.prefix_matching, **EXACT)
    # Half of the rest is on either entry without a match.
    stripe = induction.stripe(model, prompts.repeated(model, 19))
    assert stripe.item() == pytest.approx(stripe.attrs["perfect"], **EXACT)
    assert attention.first_token(model, once).item() == pytest.approx(answers.rest_on_bos, **EXACT)
    assert patterns.entropy(model, once).item() == pytest.approx(math.log(2), **EXACT)
    assert patterns.sink(model, once).item() == 1
    assert patterns.moved_from_first(model, once).item() == 0
    assert induction.qk_trace(model).item() == 0  # no earlier head moves anything


def test_a_uniform_head_has_what_is_said_to_be_chance():
    model = uniform(tiny(positional_embedding_type="none", n_ctx=40))
    for score in (patterns.entropy, patterns.sink, induction.stripe, attention.positional):
        found = score(model)
        assert found.values == pytest.approx(found.attrs["chance"], abs=1e-12)
    short = patterns.sink(model, distinct(model, 4))
    assert (short == 1).all() and short.attrs["chance"] == 1


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_lens_bridge_has_the_scores_of_the_same_gpt():
    bridge, model = native_bridge(torch.float64, normalization_type="LN", n_ctx=24)
    tokens = prompts.repeated(model, 5, batch=2)
    scores = (attention.taxonomy, attention.positional, induction.stripe, patterns.entropy,
              induction.copying, induction.output_copying,
              patterns.sink, patterns.moved_from_first, patterns.fixed_offset,
              induction.loss_by_position, lambda m: in_context.loss_by_index(m, tokens),
              lambda m: patterns.capture(m, tokens[:1]))  # fmt: skip
    for score in scores:
        assert np.allclose(score(bridge), score(model), atol=1e-10, rtol=0)


def test_scores_have_intervals_over_their_prompts():
    model, tokens = tiny(), prompts.random_tokens(tiny(), 12, batch=6)
    for score in (attention.previous_token(model, tokens), patterns.entropy(model, tokens),
                  attention.positional_preference(model, tokens, reach=3), induction.stripe(model),
                  induction.copying(model), induction.output_copying(model),
                  patterns.moved_from_first(model, tokens)):  # fmt: skip
        assert score.low.dims == score.dims and "chance" in score.attrs
        assert (score.low < score).all() and (score < score.high).all(), score.name
    one = attention.previous_token(model, tokens[:1])
    assert one.low.isnull().all() and one.high.isnull().all()
    rows = [attention.previous_token(model, row[None]) for row in tokens]
    mean = xarray.concat(rows, "row", coords="minimal", compat="override").mean("row")
    assert attention.previous_token(model, tokens).values == pytest.approx(mean.values)


def test_what_makes_no_sense_is_refused_in_words():
    with pytest.raises(ValueError, match="2 or more distinct tokens that are repeated, got 1"):
        induction.stripe(tiny(), prompts.repeated(tiny(), 1))
    with pytest.raises(ValueError, match="got 29 of the 28 beside BOS"):
        induction.stripe(tiny(n_ctx=99), prompts.repeated(tiny(n_ctx=99), 29))
    with pytest.raises(ValueError, match=r"from 0 to below 1; got 1\.5"):
        patterns.sink(tiny(), epsilon=1.5)
    with pytest.raises(ValueError, match="losses at two indices or more"):
        in_context.slope(xarray.DataArray([3.0], dims="index", coords={"index": [1]}))


@pytest.fixture(scope="module")
def gt():
    return ground_truth.Induction().model


def test_the_previous_token_head_scores_one_and_the_induction_head_matches_prefixes(gt):
    assert attention.previous_token(gt).values[0, 0] == pytest.approx(
        ANSWERS.previous_token, **CLOSE
    )
    assert attention.prefix_matching(gt).values[1, 0] == pytest.approx(
        ANSWERS.prefix_matching, **CLOSE
    )
    assert attention.taxonomy(gt).role.values.tolist() == [["previous token"], ["induction"]]


def test_k_composition_is_the_closed_form_and_other_composition_is_zero(gt):
    OV, QK = gt.OV[0, 0], gt.QK[1, 0]

    def composition(first: FactoredMatrix, second: FactoredMatrix) -> float:
        return float((first @ second).norm() / (first.norm() * second.norm()))

    assert composition(OV, QK.T) == pytest.approx(ANSWERS.k_composition, **CLOSE)
    assert ANSWERS.k_composition == pytest.approx(0.2)
    assert composition(OV, QK) == 0 and composition(OV, gt.OV[1, 0]) == 0


def test_a_token_without_a_match_rests_on_bos_and_moves_nothing(gt):
    tokens = prompts.random_tokens(gt, 19)
    _, cache = gt.run_with_cache(tokens)
    pattern = cache["pattern", 1][:, 0]
    assert pattern[:, 1:, 0].min().item() == pytest.approx(ANSWERS.rest_on_bos, **CLOSE)
    moved = cache["pattern", 1] * cache["v", 1].norm(dim=-1).mT[:, :, None]
    assert moved[:, 0, 1:].sum(-1).abs().max() < 1e-6


def test_eigenvalues_and_traces_of_its_circuits_are_the_closed_forms(gt):
    assert copying.score(gt).values[:, 0] == pytest.approx([0.0, ANSWERS.ov_positivity], **CLOSE)
    assert algebra.full_OV(gt)[1, 0].trace().item() == pytest.approx(ANSWERS.ov_trace, **CLOSE)
    through = algebra.K_composed_QK(gt, 1, 0)[0, 0]
    assert copying.positivity(through).item() == pytest.approx(ANSWERS.qk_positivity, **CLOSE)
    assert through.trace().item() == pytest.approx(100 * 20, **CLOSE)
    assert induction.copying(gt).values[1, 0] == pytest.approx(1.0, **CLOSE)


def test_silencing_the_previous_token_head_ends_induction_unless_patterns_are_kept(gt):
    """papers.md 0.4: full and pattern-preserving ablation give opposite verdicts."""
    tokens = prompts.repeated(gt, 19)
    _, clean = gt.run_with_cache(tokens)
    silent = ("blocks.0.attn.hook_z", lambda z, hook: torch.zeros_like(z))
    keep = ("blocks.1.attn.hook_pattern", lambda pattern, hook: clean[hook.name])
    second = slice(20, None)
    full = gt.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=[silent])
    kept = gt.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=[silent, keep])
    assert full[:, second].mean().item() == pytest.approx(ANSWERS.loss_before_repeat, **CLOSE)
    assert kept[:, second].mean().item() == pytest.approx(ANSWERS.loss_after_repeat, **CLOSE)


def test_a_zero_layer_model_has_no_heads_to_score():
    assert attention.taxonomy(tiny(n_layers=0)).shape[:2] == (0, 3)
    assert copying.score(tiny(n_layers=0)).shape == (0, 3)
    assert induction.copying(tiny(n_layers=0)).shape == (0, 3)
