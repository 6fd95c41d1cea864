"""The effect of an edge is the run without it, and an estimate is its slope."""

import numpy as np
import pytest
import torch

from analyses import Task, discovery, metrics
from analyses.causal.path_patching import path_patching
from circuits import ground_truth
from circuits.hooks import Cache
from tests.causal.discovery.tasks import (
    BUILT,
    CLEAN,
    CORRUPTED,
    DIFFERENCE,
    METHODS,
    SIZE,
    SMALL,
    WITH_MLPS,
    built,
    linear_model,
    on_repeats,
    task_of,
)
from tests.conftest import tiny


def test_the_effect_of_an_edge_is_the_run_of_the_circuit_without_it():
    task = task_of(tiny(**WITH_MLPS))
    effect, whole = discovery.exact(task), discovery.edges(task.model)
    assert np.array_equal(effect.notnull().all("example"), whole)
    for sender, receiver in [("embed", "L0H1.K"), ("embed", "MLP0"), ("L0H0", "L1H1.V"),
                             ("MLP0", "MLP1"), ("L1H0", "logits"), ("MLP1", "logits")]:  # fmt: skip
        less = whole & ~discovery.circuit(task.model, [(sender, receiver)])
        alone = effect.sel(sender=sender, receiver=receiver)
        assert np.allclose(alone, discovery.value(task, less) - task.clean_value), (
            sender,
            receiver,
        )
        assert abs(alone).max() > 1e-4
    assert np.allclose(effect.sel(sender="pos").fillna(0.0), 0.0)  # alike in both runs


def test_an_edge_is_the_direct_path_of_path_patching():
    task = task_of(tiny(**WITH_MLPS), metric=metrics.loss(torch.tensor([3, 1, 4])))
    effect = discovery.exact(task)
    for receiver in ("L1H1.Q", "MLP1", "logits"):
        seen = path_patching(
            task, senders=["embed", "L0H1", "MLP0"], receivers=[receiver], freeze_mlps=True
        )
        ours = effect.sel(receiver=receiver, sender=seen.sender.values)
        assert np.allclose(ours, (seen - seen.base).values)


def test_estimates_are_exact_where_the_model_is_linear():
    task = task_of(linear_model())
    effect = discovery.exact(task)
    for estimate in (discovery.eap(task), discovery.eap_ig(task, 2),
                     discovery.eap_ig(task, 2, along="activations")):  # fmt: skip
        assert np.allclose(estimate, effect, equal_nan=True)
    assert float(abs(effect).max()) > 0.1


def test_an_estimate_is_the_slope_of_the_effect():
    model = tiny(**WITH_MLPS)
    task = task_of(model)
    estimate, whole = discovery.eap(task), discovery.edges(model)
    here, there = task.clean_run.cache, task.corrupted_run.cache
    near = {name: here[name] + 1e-4 * (there[name] - here[name])
            for name in here if not name.endswith(("tokens", "attn_scores"))}  # fmt: skip
    effect = discovery.exact(Task(model, CLEAN, Cache(near, model.cfg.n_layers), task.metric))
    assert np.allclose(estimate.where(whole), effect * 1e4, atol=1e-3, equal_nan=True)


@pytest.mark.parametrize("fields", [{**SMALL, "normalization_type": "LN"}, WITH_MLPS])
def test_integrated_along_the_inputs_the_edges_of_embed_add_up_to_the_embedding(fields):
    model = tiny(**fields)
    task = task_of(model)
    with torch.no_grad():
        moved = model.run_with_hooks(
            CLEAN, fwd_hooks=[("hook_embed", lambda embed, hook: model.embed(CORRUPTED))]
        )
    change = DIFFERENCE(moved[:, -1]).numpy() - task.clean_value
    missed = [abs(discovery.eap_ig(task, steps).sel(sender="embed").sum("receiver") - change).max()
              for steps in (1, 8, 64)]  # fmt: skip
    assert missed[0] > 10 * missed[2] and missed[2] < 2e-3 * abs(change).max()


def test_integrated_along_activations_the_edges_of_a_sender_add_up_to_it():
    task = task_of(tiny(**{**WITH_MLPS, "n_heads": 1}))
    whole = discovery.edges(task.model)
    estimate = discovery.eap_ig(task, 12, along="activations").sum("receiver")
    for sender in ("embed", "L0H0", "MLP0", "L1H0"):
        change = discovery.value(task, whole & (whole.sender != sender)) - task.clean_value
        assert np.allclose(estimate.sel(sender=sender), change, atol=1e-2), sender
        assert abs(change).max() > 0.1


def test_the_callers_grad_mode_and_weights_are_left_alone():
    model = tiny(**SMALL)
    with torch.no_grad():
        discovery.eap(task_of(model))
        assert not torch.is_grad_enabled()
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(point.has_active_hooks for point in model.hook_dict.values())


def test_a_metric_of_the_batch_gives_the_mean_of_what_it_gives_of_examples():
    each, whole = (task_of(tiny(**SMALL), metric=one)
                   for one in (DIFFERENCE, lambda logits: DIFFERENCE(logits).mean()))  # fmt: skip
    for call in (discovery.exact, discovery.eap, lambda task: discovery.eap_ig(task, 2)):
        found = call(whole)
        assert found.sizes["example"] == 1
        assert np.allclose(found[..., 0], call(each).mean("example", skipna=False), equal_nan=True)
    kept = discovery.top(discovery.exact(whole), 9)
    assert np.isclose(discovery.faithfulness(whole, kept), discovery.faithfulness(each, kept))
    assert discovery.acdc(whole, 0.1).equals(discovery.acdc(each, 0.1))


@pytest.mark.parametrize("name", BUILT)
def test_every_method_finds_the_circuit_that_was_built(name):
    task, edges = built(name)
    truth = discovery.circuit(task.model, edges)
    areas = {way: discovery.curve(scores(task), truth).attrs["auc"]
             for way, scores in METHODS.items()}  # fmt: skip
    print(name, areas)
    assert all(area > 1 - 1e-12 for area in areas.values()), areas
    assert discovery.top(discovery.exact(task), len(edges)).equals(truth)
    assert discovery.greedy(discovery.eap_ig(task), len(edges)).equals(truth)
    assert discovery.significant_edges(discovery.exact(task)).equals(truth) or len(task.clean) < 12


def test_slopes_are_blind_where_attention_is_saturated_and_their_mean_is_not():
    model = ground_truth.Induction(**SIZE).model  # sharpness 100
    task = on_repeats(model)
    truth = discovery.circuit(model, ground_truth.Induction(**SIZE).edges)
    slope = discovery.eap(task).mean("example")
    assert (abs(slope.sel(receiver=["L1H0.Q", "L1H0.K"])).fillna(0.0) < 1e-12).all()
    assert discovery.curve(discovery.eap_ig(task), truth).attrs["auc"] > 1 - 1e-12
