"""Composition scores: labelled, those of the dense products, silent on random models."""

import itertools

import numpy as np
import pytest
import torch

from analyses import head_composition
from circuits import GPT, algebra, ground_truth
from tests.conftest import NORMS, ROTARY, tiny
from tests.decomposition.initialised import initialised
from tests.laws import invariances

PLAIN = {"normalization_type": None, "bias": False, "positional_embedding_type": "standard"}


@pytest.mark.parametrize("norm", NORMS)
def test_raw_scores_are_those_of_the_dense_products(norm):
    model = tiny(n_layers=3, normalization_type=norm)
    result = head_composition.raw(model, samples=1)
    OV, QK = algebra.OV(model).AB, algebra.QK(model).AB
    heads = [(i, j) for i in range(3) for j in range(3)]
    for (w, writer), (r, reader) in itertools.product(enumerate(heads), enumerate(heads)):
        if writer[0] < reader[0]:
            for via, M in (("Q", QK[reader]), ("K", QK[reader].T), ("V", OV[reader])):
                dense = (OV[writer] @ M).norm() / (OV[writer].norm() * M.norm())
                assert float(result.sel(via=via)[w, r]) == pytest.approx(dense.item(), abs=1e-9)


def test_scores_are_raw_less_chance_and_labelled_and_empty_where_no_head_can_read():
    model = tiny(n_layers=3)
    raw, scores = head_composition.raw(model), head_composition.over_chance(model)
    chance = 12**-0.5
    assert scores.dims == ("via", "writer", "reader") and scores.shape == (3, 9, 9)
    assert scores.via.values.tolist() == ["Q", "K", "V"]
    assert scores.writer.values[[0, 4, 8]].tolist() == ["L0H0", "L1H1", "L2H2"]
    assert scores.reader_layer.values.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert scores.writer_head.values.tolist() == [0, 1, 2] * 3
    assert raw.attrs["chance"] == scores.attrs["chance"] == pytest.approx(chance)
    assert scores.attrs["bounds"] == pytest.approx((-chance, 1 - chance))
    assert scores.attrs["quantile"] == pytest.approx(raw.attrs["quantile"] - chance)
    np.testing.assert_allclose(scores.values, raw.values - chance, atol=1e-12)
    later = scores.writer_layer < scores.reader_layer
    assert (scores.notnull() == later).all()
    assert np.nanmin(raw.values) >= 0 and np.nanmax(raw.values) <= 1
    assert float(scores.sel(via="K", writer="L0H1", reader="L2H0")) == float(scores[1, 1, 6])


def test_scores_need_no_gradients_and_leave_the_gradient_mode_alone():
    assert head_composition.over_chance(tiny()).size == 3 * 36 and torch.is_grad_enabled()


def test_k_composition_of_the_induction_circuit_is_the_closed_form_and_the_only_one():
    gt = ground_truth.Induction().model
    raw = head_composition.raw(gt, samples=1)
    answer = ground_truth.Induction().k_composition
    pair = raw.sel(writer="L0H0", reader="L1H0")
    assert pair.values == pytest.approx([0, answer, 0], abs=1e-6)


def test_on_random_models_squared_scores_are_one_over_d_model_within_their_sampling_error():
    """E ||A M||^2 = ||A||^2 ||M||^2 / d_model exactly. Models are independent, their pairs are not:
    the error is that of the mean over models, of which four are allowed."""
    squared = [head_composition.raw(model, samples=1) ** 2 * 64 for model in initialised(20)]
    for via in ("Q", "K", "V"):
        means = np.array([float(one.sel(via=via).mean()) for one in squared])
        error = means.std(ddof=1) / np.sqrt(20)
        assert error < 0.02 and abs(means.mean() - 1) < 4 * error, via


def test_on_random_models_the_largest_score_exceeds_the_quantile_as_seldom_as_level_says():
    models = initialised(20)
    attrs = head_composition.over_chance(models[0], seed=1).attrs
    quantile, level = attrs["quantile"], attrs["level"]
    assert level == 0.95  # 19 random models
    largest = [float(head_composition.over_chance(model, samples=1).max()) for model in models]
    assert sum(score > quantile for score in largest) <= 4  # 1 expected; P(5 or more) = 0.3 %


def test_the_quantile_is_reproduced_by_its_seed_and_not_lower_with_more_samples():
    few, more = (head_composition.over_chance(tiny(), samples=n).attrs["quantile"] for n in (2, 6))
    assert few == head_composition.over_chance(tiny(), samples=2).attrs["quantile"] and more >= few
    assert more != head_composition.over_chance(tiny(), samples=6, seed=9).attrs["quantile"]


def test_random_models_of_a_shape_are_drawn_once_and_give_the_number_they_gave(monkeypatch):
    head_composition._largest_at_random.cache_clear()
    made = []
    monkeypatch.setattr(head_composition, "GPT", lambda cfg: made.append(cfg.seed) or GPT(cfg))
    first = head_composition.over_chance(initialised(1)[0], samples=3, seed=7).attrs["quantile"]
    again = head_composition.over_chance(tiny(d_model=64, n_heads=4, d_head=16), samples=3, seed=7)
    assert made == [7, 8, 9] and again.attrs["quantile"] == first
    head_composition.over_chance(tiny(), samples=3, seed=7)  # another shape
    head_composition.over_chance(initialised(1)[0], samples=3, seed=8)  # 10 is new
    assert made == [7, 8, 9, 7, 8, 9, 10]


def test_turned_heads_of_a_random_model_reach_what_gaussian_ones_do_and_thin_heads_more():
    model = initialised(1)[0]
    quantile = {
        null: head_composition.raw(model, null=null).attrs["quantile"]
        for null in ("drawn", "closed", "rotated")
    }
    assert quantile["rotated"] == pytest.approx(quantile["closed"], rel=0.01)
    assert quantile["drawn"] == pytest.approx(quantile["closed"], rel=0.03)
    with torch.no_grad():
        for block in model.blocks:  # each head reads and writes two directions
            block.attn.W_V[..., 2:] = 0
            block.attn.W_Q[..., 2:] = 0
    raw = head_composition.raw(model, null="rotated")
    assert raw.attrs["quantile"] > 1.5 * quantile["rotated"] and raw.attrs["level"] == 0.95
    assert (raw > raw.attrs["quantile"]).sum() == 0 < (raw > quantile["closed"]).sum()


def test_a_null_that_does_not_exist_and_models_of_one_dimension():
    with pytest.raises(ValueError, match="null='gauss'; choose from drawn, closed, rotated"):
        head_composition.over_chance(tiny(), null="gauss")
    point = tiny(d_model=1, n_heads=1, d_head=1, normalization_type=None)
    for null in ("closed", "rotated"):
        assert head_composition.raw(point, null=null).attrs["quantile"] == pytest.approx(1)


@pytest.mark.parametrize(
    "change", [ground_truth.rotated, invariances.QK_gauged, invariances.OV_gauged]
)
def test_scores_do_not_depend_on_the_coordinates(change):
    before = head_composition.raw(tiny(**PLAIN), samples=1)
    after = head_composition.raw(change(tiny(**PLAIN)), samples=1)
    np.testing.assert_allclose(after.values, before.values, atol=1e-9)


def test_scores_follow_the_heads():
    before = head_composition.raw(tiny(**PLAIN), samples=1)
    after = head_composition.raw(invariances.reordered(tiny(**PLAIN), [2, 0, 1]), samples=1)
    moved = before.isel(writer=[2, 0, 1, 5, 3, 4], reader=[2, 0, 1, 5, 3, 4])
    np.testing.assert_allclose(after.values, moved.values, atol=1e-9)


def test_the_erratum_is_no_property_of_the_model():
    """The rotated norm changes with the coordinates inside a head, which nothing can see."""
    before = head_composition.erratum(tiny(**PLAIN))
    after = head_composition.erratum(invariances.OV_gauged(tiny(**PLAIN)))
    assert float(abs(after - before).max()) > 0.01
    assert "erratum" in before.attrs["long_name"] and "quantile" not in before.attrs
    over_chance = head_composition.over_chance(tiny(**PLAIN), samples=1)
    assert (before.isnull() == over_chance.isnull()).all()


def test_the_chance_level_of_the_erratum_is_what_random_models_give():
    found = [head_composition.erratum(model) for model in initialised(10)]
    chance = found[0].attrs["chance"]
    squared = np.array([float(((one + chance) ** 2).mean()) for one in found])
    assert np.sqrt(squared.mean()) == pytest.approx(chance, rel=0.02)


def test_rotary_heads_compose_at_an_offset_or_in_the_mean_with_chance_of_the_same_kind():
    model = tiny(**ROTARY[1]).float()
    at_one, mean = (head_composition.raw(model, samples=2, offset=back) for back in (1, None))
    assert np.allclose(at_one.sel(via="V"), mean.sel(via="V"), equal_nan=True)
    assert not np.allclose(at_one.sel(via="K"), mean.sel(via="K"), equal_nan=True)
    plain = head_composition.raw(tiny(d_head=4, n_layers=3).float(), samples=2)
    assert at_one.attrs["quantile"] == plain.attrs["quantile"] != mean.attrs["quantile"]
    for null in ("closed", "rotated"):
        assert head_composition.raw(model, null=null, offset=1).attrs["quantile"] > at_one.chance
    with pytest.raises(ValueError, match="'closed' is for one offset"):
        head_composition.raw(model, null="closed")
