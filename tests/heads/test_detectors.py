"""Every detector on a circuit whose answers are known, and on random models: there it is silent."""

import dataclasses
import math
from functools import partial

import pytest
import torch

from analyses import attention, copying, induction, masks, prompts, skip_trigrams
from circuits import GPT, algebra, ground_truth, load
from circuits.data import train_tokenizer
from circuits.matrices import FactoredMatrix
from tests.conftest import tiny

EXACT = {"abs": 1e-6, "rel": 0}


@pytest.fixture(scope="module")
def gt():
    return ground_truth.Induction().model


ANSWERS = ground_truth.Induction()


def test_the_previous_token_head_scores_one_and_the_induction_head_matches_prefixes(gt):
    assert attention.previous_token(gt).values[0, 0] == pytest.approx(
        ANSWERS.previous_token, **EXACT
    )
    assert attention.prefix_matching(gt).values[1, 0] == pytest.approx(
        ANSWERS.prefix_matching, **EXACT
    )
    assert attention.taxonomy(gt).role.values.tolist() == [["previous token"], ["induction"]]


@pytest.mark.parametrize(
    ("d_vocab", "gain", "rest"), [(20, 12.0, 0.5), (11, 5.0, 0.25), (30, 9.0, 0.8)]
)
def test_losses_before_and_after_the_repeat_are_the_closed_forms(d_vocab, gain, rest):
    answers = ground_truth.Induction(d_vocab, gain=gain, rest=rest)
    model = answers.model
    loss = induction.loss_by_position(model, prompts.repeated(model, d_vocab - 1)).mean("example")
    before = loss.where(loss.pos < loss.attrs["repeat"], drop=True)
    after = loss.where(loss.pos >= loss.attrs["repeat"], drop=True)
    assert before.values == pytest.approx(answers.loss_before_repeat, **EXACT)
    assert after.values == pytest.approx(answers.loss_after_repeat, **EXACT)
    if d_vocab == 20:
        assert answers.loss_before_repeat == pytest.approx(2.99573, abs=1e-5)
        assert answers.loss_after_repeat == pytest.approx(1.16733e-4, abs=1e-9)


def test_k_composition_is_the_closed_form_and_other_composition_is_zero(gt):
    OV, QK = gt.OV[0, 0], gt.QK[1, 0]

    def composition(first: FactoredMatrix, second: FactoredMatrix) -> float:
        return float((first @ second).norm() / (first.norm() * second.norm()))

    assert composition(OV, QK.T) == pytest.approx(ANSWERS.k_composition, **EXACT)
    assert ANSWERS.k_composition == pytest.approx(0.2)
    assert composition(OV, QK) == 0 and composition(OV, gt.OV[1, 0]) == 0


def test_a_token_without_a_match_rests_on_bos_and_moves_nothing(gt):
    tokens = prompts.random_tokens(gt, 19)
    _, cache = gt.run_with_cache(tokens)
    pattern = cache["pattern", 1][:, 0]
    assert pattern[:, 1:, 0].min().item() == pytest.approx(ANSWERS.rest_on_bos, **EXACT)
    moved = cache["pattern", 1] * cache["v", 1].norm(dim=-1).mT[:, :, None]
    assert moved[:, 0, 1:].sum(-1).abs().max() < 1e-6


def test_eigenvalues_and_traces_of_its_circuits_are_the_closed_forms(gt):
    assert copying.score(gt).values[:, 0] == pytest.approx([0.0, ANSWERS.ov_positivity], **EXACT)
    assert algebra.full_OV(gt)[1, 0].trace().item() == pytest.approx(ANSWERS.ov_trace, **EXACT)
    through = algebra.K_composed_QK(gt, 1, 0)[0, 0]
    assert copying.positivity(through).item() == pytest.approx(ANSWERS.qk_positivity, **EXACT)
    assert through.trace().item() == pytest.approx(100 * 20, **EXACT)
    assert induction.copying(gt).values[1, 0] == pytest.approx(1.0, **EXACT)


def test_silencing_the_previous_token_head_ends_induction_unless_patterns_are_kept(gt):
    """papers.md 0.4: full and pattern-preserving ablation give opposite verdicts."""
    tokens = prompts.repeated(gt, 19)
    _, clean = gt.run_with_cache(tokens)
    silent = ("blocks.0.attn.hook_z", lambda z, hook: torch.zeros_like(z))
    keep = ("blocks.1.attn.hook_pattern", lambda pattern, hook: clean[hook.name])
    second = slice(20, None)
    full = gt.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=[silent])
    kept = gt.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=[silent, keep])
    assert full[:, second].mean().item() == pytest.approx(ANSWERS.loss_before_repeat, **EXACT)
    assert kept[:, second].mean().item() == pytest.approx(ANSWERS.loss_after_repeat, **EXACT)


def test_full_circuits_of_one_layer_add_up_to_the_logits():
    """T = Id x W_E W_U + sum_h A^h x (W_E W_OV W_U), Elhage et al. 2021."""
    model = tiny(n_layers=1, normalization_type=None, positional_embedding_type="none", bias=False)
    tokens = torch.randint(0, 29, (2, 6), generator=torch.Generator().manual_seed(0))
    logits, cache = model.run_with_cache(tokens)
    total = (model.W_E @ model.W_U)[tokens]
    OV = algebra.full_OV(model)[0].AB
    for head in range(3):
        total = total + cache["pattern", 0][:, head] @ OV[head][tokens]
    assert torch.allclose(total, logits, atol=1e-10)
    scores = algebra.full_QK(model)[0].AB
    for head in range(3):
        seen = scores[head][tokens[:, :, None], tokens[:, None, :]]
        lower = torch.ones(6, 6).tril().bool()
        assert torch.allclose(
            cache["attn_scores", 0][:, head][:, lower], seen[:, lower], atol=1e-10
        )


def test_norms_fold_into_the_circuits_up_to_the_scale_of_each_position():
    """With LN, the OV circuit's logits times both 1/sigma are the head's effect on the logits."""
    model = tiny(n_layers=1, positional_embedding_type="none", bias=False)
    tokens = torch.arange(6)[None]
    _, cache = model.run_with_cache(tokens, names_filter="*")
    effect = cache["result", 0] / cache["scale"][..., None] @ algebra.unembedding(model)
    for head in range(3):
        moved = cache["pattern", 0][:, head] / cache["scale", 0, "ln1"].mT
        circuit = moved @ algebra.full_OV(model)[0, head].AB[tokens] / cache["scale"]
        assert torch.allclose(circuit, effect[:, :, head], atol=1e-10)


def test_k_composed_scores_are_the_scores_of_what_the_writer_moved():
    model = tiny(normalization_type=None, positional_embedding_type="none", bias=False)
    through = algebra.K_composed_QK(model, 1, 0)[2, 1].AB
    query = model.W_E @ model.W_Q[1, 2] / model.blocks[1].attn.scale
    moved = model.W_E @ model.W_V[0, 1] @ model.W_O[0, 1] @ model.W_K[1, 2]
    assert torch.allclose(through, query @ moved.T)


def test_a_uniform_head_scores_exactly_the_chance_level():
    model = tiny(positional_embedding_type="none")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
            block.attn.b_Q.zero_()
    rules = (partial(attention.behaviour, name=name) for name in masks.BEHAVIOURS)
    for score in (*rules, partial(attention.offset, back=3)):
        result = score(model)
        assert result.values == pytest.approx(result.attrs["chance"], abs=1e-12)


def test_masks_mark_what_they_say():
    tokens = torch.tensor([[0, 5, 6, 5, 5, 7]])
    assert masks.to_duplicates(tokens)[0].nonzero().tolist() == [[3, 1], [4, 1], [4, 3]]
    assert masks.to_successors(tokens)[0].nonzero().tolist() == [[3, 2], [4, 2], [4, 4]]
    assert masks.to_offset(tokens, 2)[0].nonzero().tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert masks.to_first(tokens)[0].all(0).tolist() == [True] + [False] * 5


def test_scores_are_labelled_bounded_and_need_no_tokenizer():
    score = attention.prefix_matching(tiny())
    assert score.dims == ("layer", "head") and score.label.values[1, 2] == "L1H2"
    assert score.attrs["bounds"] == (0.0, 1.0) and 0 < score.attrs["chance"] < 1
    preference = attention.positional_preference(tiny(), reach=4)
    assert preference.sizes == {"layer": 2, "head": 3, "offset": 5}
    assert preference.sel(offset=1).values == pytest.approx(attention.previous_token(tiny()).values)


def test_skip_trigrams_are_those_of_the_dense_circuits():
    vocabulary = train_tokenizer([" alpha beta gamma delta epsilon" * 9], 290)
    model = tiny(d_vocab=vocabulary.size, normalization_type=None)
    model.tokenizer = vocabulary
    table = skip_trigrams.copying_table(model, top=3)
    assert table["head"].tolist() == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
    for row, at in zip(table.to_dict("records"), [(i, j) for i in (0, 1) for j in (0, 1, 2)],
                       strict=True):  # fmt: skip
        source = model.to_single_token(row["source"])
        dense = algebra.full_OV(model)[at].AB
        outs = dense[source] - dense[source].mean()
        assert [score for _, score in row["outs"]] == pytest.approx(outs.topk(3).values.tolist())
        assert row["outs"][0][0] == model.to_string(int(outs.argmax()))
        assert row["own_rank"] == (outs > outs[source]).sum()
        asked = algebra.full_QK(model)[at].AB
        asked = (asked - asked.mean(-1, keepdim=True))[:, source].topk(3)
        assert [score for _, score in row["destinations"]] == pytest.approx(asked.values.tolist())


def test_a_zero_layer_model_has_no_heads_to_score():
    assert attention.taxonomy(tiny(n_layers=0)).shape[:2] == (0, 3)
    assert copying.score(tiny(n_layers=0)).shape == (0, 3)
    assert induction.copying(tiny(n_layers=0)).shape == (0, 3)


@pytest.mark.parametrize("seed", range(8))  # and fifty small ones in test_scores.py
def test_an_untrained_model_of_the_shipped_shape_has_no_head_above_any_threshold(seed):
    model = GPT(dataclasses.replace(load("attn-only-2l").cfg, seed=seed)).eval()
    assert (attention.taxonomy(model).role.values == "-").all()
    assert float(copying.score(model).max()) < 0.5
    assert float(induction.copying(model).max()) < 0.2
    assert abs(induction.repeat_gain(model)) < 0.02
    loss = induction.loss_by_position(model, prompts.repeated(model, batch=4))
    assert float(loss.mean()) == pytest.approx(math.log(2048), abs=0.1)
