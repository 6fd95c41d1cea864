"""Attribution patching: the slope of patching. It is exact where patching is linear."""

import numpy as np
import pytest
import torch

from analyses import Task, attribution, metrics, patching
from circuits import GPT
from circuits.interventions import edit, sweep
from tests.causal.discovery.tasks import linear_model
from tests.causal.near import METRIC, OTHER, TOKENS, near
from tests.conftest import tiny

PLACES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
WITH_MLPS = {"normalization_type": "LN", "d_mlp": 7, "act_fn": "gelu", "smeared_keys": True}


def near_task(model: GPT) -> Task:
    return Task(model, TOKENS, near(model, 1e-5), METRIC)


def rise(result) -> np.ndarray:
    return (result - result.base).values


@pytest.mark.parametrize("place", PLACES)
def test_an_estimate_for_the_stream_is_the_slope_of_patching(place):
    task = near_task(tiny(**WITH_MLPS))
    truth = patching.positions(task, place=place, into="clean")
    estimate = attribution.positions(task, place=place, into="clean")
    assert estimate.dims == truth.dims and estimate.shape == truth.shape
    assert np.allclose(rise(estimate), rise(truth), atol=1e-8) and abs(rise(truth)).max() > 1e-6
    assert np.allclose(estimate.base, truth.base) and np.allclose(estimate.source, truth.source)


@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("part", ["z", "q", "k", "v", "pattern"])
def test_an_estimate_for_heads_is_the_slope_of_patching(part, by_position):
    task = near_task(tiny(**WITH_MLPS))
    how = {"part": part, "by_position": by_position, "into": "clean"}
    truth = patching.heads(task, **how)
    estimate = attribution.heads(task, **how)
    assert estimate.dims == truth.dims and (estimate.label == truth.label).all()
    assert np.allclose(rise(estimate), rise(truth), atol=1e-8) and abs(rise(truth)).max() > 1e-7


def test_an_estimate_for_neurons_is_the_slope_of_patching():
    model = tiny(**WITH_MLPS)
    task = near_task(model)
    source = task.corrupted_run.cache
    estimate = attribution.neurons(task, into="clean")
    for layer, neuron in [(0, 2), (1, 6)]:
        with torch.no_grad():
            values = model.run_with_cache(TOKENS)[1]["post", layer].clone()
        values[..., neuron] = source["post", layer][..., neuron]
        cell = [edit(model, ("post", layer), values)]
        truth = sweep(model, TOKENS, [cell], METRIC, at=-1)[0]
        assert np.allclose(estimate.sel(layer=layer, neuron=neuron), truth, atol=1e-9)


def test_an_estimate_is_exact_where_model_and_metric_are_linear():
    model = linear_model()
    metric = metrics.logit_difference(torch.tensor([3, 1, 4, 1]), torch.tensor([5, 9, 2, 6]))
    task = Task(model, OTHER, TOKENS, metric)
    assert np.allclose(attribution.positions(task), patching.positions(task))
    share = patching.recovery(attribution.heads(task, part="v"))
    assert np.allclose(share, patching.recovery(patching.heads(task, part="v")))


def test_what_cannot_be_estimated_is_refused_in_words():
    model = tiny()
    with pytest.raises(ValueError, match="attention-only"):
        attribution.neurons(Task(model, OTHER, TOKENS, METRIC))
    with pytest.raises(ValueError, match=r"\[4, 5\] and corrupted tokens \[4, 6\]"):
        attribution.positions(Task(model, TOKENS[:, :5], near(model, 0.0), METRIC), into="clean")
    with pytest.raises(ValueError, match="outside of 6 positions"):
        attribution.positions(Task(model, OTHER, TOKENS, METRIC, at=6))
    with pytest.raises(ValueError, match="no layers"):
        attribution.positions(Task(tiny(n_layers=0), OTHER, TOKENS, METRIC))
