"""Copying and matching: small matrices give what the dense d_vocab x d_vocab ones would."""

import dataclasses

import numpy as np
import pytest
import torch

from analyses import copying
from circuits import GPT, GPTConfig, algebra, ground_truth
from circuits.model import every_head
from tests.conftest import tiny
from tests.laws import invariances

SMALL = GPTConfig(n_layers=2, d_model=128, n_heads=4, d_head=32, d_vocab=200, n_ctx=8)
PLAIN = {"normalization_type": None, "bias": False, "positional_embedding_type": "standard"}
SCORES = {
    "score": copying.score,
    "qk_score": copying.qk_score,
    "composed_qk_score": lambda model: copying.composed_qk_score(model, "L0H1"),
    "diagonal": copying.diagonal,
    "own_top": lambda model: copying.own_top(model, 3),
}


def dense_positivity(matrix: torch.Tensor) -> float:
    values = torch.linalg.eigvals(matrix.detach())
    return float(values.sum().real / values.abs().sum())


def test_positivity_from_small_matrices_is_that_of_the_dense_circuits(variant):
    if variant.cfg.n_layers < 2:
        return
    OV, QK = copying.score(variant), copying.qk_score(variant)
    through = copying.composed_qk_score(variant, (0, 1))
    for layer, head in every_head(variant.cfg):
        full = {name: getattr(algebra, name)(variant)[layer, head].AB for name in
                ("full_OV", "full_QK")}  # fmt: skip
        assert float(OV[layer, head]) == pytest.approx(dense_positivity(full["full_OV"]), abs=1e-8)
        assert float(QK[layer, head]) == pytest.approx(dense_positivity(full["full_QK"]), abs=1e-8)
        if layer > 0:
            dense = algebra.composed_QK(variant, (layer, head), key=["L0H1"]).AB
            found = float(through.sel(layer=layer, head=head))
            assert found == pytest.approx(dense_positivity(dense), abs=1e-8)


def test_composed_scores_are_labelled_with_the_later_layers_they_are_of():
    result = copying.composed_qk_score(tiny(n_layers=4), "L1H2")
    assert result.layer.values.tolist() == [2, 3]
    assert result.label.values.tolist() == [["L2H0", "L2H1", "L2H2"], ["L3H0", "L3H1", "L3H2"]]
    assert result.notnull().all() and "L1H2" in result.attrs["long_name"]


def test_own_ranks_and_shares_are_those_of_the_dense_circuits():
    model = tiny()
    dense = algebra.full_OV(model).AB
    own = dense.diagonal(dim1=-2, dim2=-1)
    expected = (dense >= own[..., None]).sum(-1) - 1
    for block_bytes in (1, 29 * 8 * 4, 2**26):
        ranks = copying.own_rank(model, block_bytes=block_bytes)
        assert ranks.dims == ("layer", "head", "token")
        assert (ranks.values == expected.numpy()).all()
    for top in (1, 5, 29):
        share = copying.own_top(model, top)
        assert share.values == pytest.approx((expected < top).double().mean(-1).numpy())
        assert share.attrs["chance"] == top / 29
    raised = own > dense.mean(-1)
    assert copying.diagonal(model).values == pytest.approx(raised.double().mean(-1).numpy())


def test_all_of_the_induction_head_copies_but_its_resting_place():
    """papers.md 5.2, GT-A: top-1 of the diagonal is (V - 1) / V, for BOS raises nothing."""
    gt = ground_truth.Induction().model
    for share in (copying.own_top(gt), copying.diagonal(gt)):
        assert share.values[:, 0] == pytest.approx([0, 19 / 20])
    assert copying.composed_qk_score(gt, "L0H0").values == pytest.approx(1.0)
    assert copying.qk_score(gt).values[0, 0] == 0  # positions are no part of the circuit


def test_a_head_that_is_zero_copies_nothing():
    model = tiny()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_V.zero_()
    for score in (copying.score, copying.own_top, copying.diagonal):
        assert (score(model).values == 0).all()


@pytest.mark.parametrize("name", SCORES)
def test_results_are_bounded_and_say_what_chance_is(name):
    result = SCORES[name](tiny(n_layers=3))
    low, high = result.attrs["bounds"]
    assert low <= float(result.min()) and float(result.max()) <= high
    assert low <= result.attrs["chance"] <= high and result.attrs["long_name"]
    assert result.dims == ("layer", "head") and torch.is_grad_enabled()


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize(
    "change", [ground_truth.rotated, invariances.QK_gauged, invariances.OV_gauged]
)
def test_scores_do_not_depend_on_the_coordinates(name, change):
    before, after = SCORES[name](tiny(**PLAIN)), SCORES[name](change(tiny(**PLAIN)))
    np.testing.assert_allclose(after.values, before.values, atol=1e-9)


@pytest.mark.parametrize("name", sorted(set(SCORES) - {"composed_qk_score"}))
def test_scores_follow_the_heads(name):
    before = SCORES[name](tiny(**PLAIN))
    after = SCORES[name](invariances.reordered(tiny(**PLAIN), [2, 0, 1]))
    np.testing.assert_allclose(after.values, before.values[:, [2, 0, 1]], atol=1e-9)


def test_no_head_of_20_random_models_copies_or_matches():
    for seed in range(20):
        model = GPT(dataclasses.replace(SMALL, seed=seed))
        for score in (copying.score, copying.qk_score):
            assert float(abs(score(model)).max()) < 0.5
        through = copying.composed_qk_score(model, "L0H0")
        assert float(abs(through).max()) < 0.5
        assert float(copying.own_top(model, 5).max()) < 0.1  # chance: 0.025
        assert float(abs(copying.diagonal(model) - 0.5).max()) < 0.25


def test_progress_is_told_of_every_block():
    steps = []
    copying.own_rank(tiny(), block_bytes=1, progress=lambda work: steps.extend(work) or work)
    assert len(steps) == 2 * 3 * 29


def test_models_without_layers_have_no_scores():
    empty = tiny(n_layers=0)
    assert copying.own_rank(empty).shape == (0, 3, 29)
    for name in ("qk_score", "diagonal", "own_top"):
        assert SCORES[name](empty).shape == (0, 3)
