"""Edges: the run of a circuit, effects of edges, and their estimates by gradients."""

import numpy as np
import pytest
import torch

from analyses import Task, discovery, metrics, patching
from analyses.causal.discovery.runs import written
from analyses.causal.path_patching import path_patching
from circuits import GPT
from circuits.decomposition import stream
from circuits.hooks import Cache
from tests.conftest import tiny, tiny_tokens

CLEAN, CORRUPTED = tiny_tokens(batch=3, pos=6), tiny_tokens(batch=3, pos=6, seed=5)
METRIC = metrics.logit_difference(torch.tensor([3, 1, 4]), torch.tensor([5, 9, 2]))
SMALL = {"n_heads": 2, "d_head": 4, "d_model": 8}
WITH_MLPS = {**SMALL, "normalization_type": "LN", "d_mlp": 7, "act_fn": "gelu",
             "positional_embedding_type": "standard"}  # fmt: skip


def task_of(model: GPT, replace="run", metric=METRIC, **how) -> Task:
    return Task(model, CLEAN, CORRUPTED, metric, replace=replace, **how)


def linear_model() -> GPT:
    """Uniform attention whatever it reads, no norm and no MLP: the logits are linear in tokens."""
    model = tiny(**{**SMALL, "normalization_type": None, "n_layers": 3})
    with torch.no_grad():
        for block in model.blocks:
            for weight in (block.attn.W_Q, block.attn.b_Q):
                weight.zero_()
    return model


def run(model: GPT, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens)[:, -1]


def test_all_edges_are_the_clean_run_and_none_the_corrupted_one(variant):
    if not variant.cfg.n_layers:
        return
    task = task_of(variant)
    whole = discovery.edges(variant)
    assert torch.allclose(discovery.logits(task, whole), run(variant, CLEAN))
    assert torch.allclose(discovery.logits(task, whole & False), run(variant, CORRUPTED))
    assert np.allclose(task.clean_value, METRIC(run(variant, CLEAN)))


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


def test_all_edges_of_a_sender_together_are_the_sender():
    model = tiny(**WITH_MLPS)
    task, whole = task_of(model), discovery.edges(model)
    node = patching.heads(task, into="clean")
    for layer, head in [(0, 1), (1, 0)]:
        less = whole & (whole.sender != f"L{layer}H{head}")
        assert np.allclose(discovery.value(task, less), node.sel(layer=layer, head=head))


def test_a_cut_edge_carries_the_mean_or_nothing_if_asked():
    model = tiny(**WITH_MLPS)
    none = discovery.edges(model) & False
    with torch.no_grad():
        caches = [model.run_with_cache(tokens)[1] for tokens in (CLEAN, CORRUPTED)]
        biases = stream(model, caches[0]) - written(model, caches[0]).sum(0)
        mean = written(model, caches[1]).mean(1).sum(0)
        for by, left in [("zero", biases), ("mean", biases + mean)]:
            logits = model.unembed(model.ln_final(left))[:, -1]
            assert torch.allclose(discovery.logits(task_of(model, by), none), logits), by


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
    change = METRIC(moved[:, -1]).numpy() - task.clean_value
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


def test_faithfulness_goes_from_none_of_the_task_to_all_of_it_with_the_edges():
    task = task_of(tiny(**SMALL))
    scores = {"exact": discovery.exact(task), "EAP": discovery.eap(task)}
    found = discovery.faithfulness_by_edges(
        task, scores, [0, 5, int(discovery.edges(task.model).sum())]
    )
    assert found.dims == ("by", "edges") and found.by.values.tolist() == ["exact", "EAP"]
    np.testing.assert_allclose(found[:, [0, 2]], [[0, 1], [0, 1]], atol=1e-12)
    best = discovery.top(scores["EAP"], 5)
    assert found.sel(by="EAP", edges=5) == discovery.faithfulness(task, best)
    assert best.sum() == 5 and not np.isclose(found[1, 1], found[1, [0, 2]]).any()


def test_the_callers_grad_mode_and_weights_are_left_alone():
    model = tiny(**SMALL)
    with torch.no_grad():
        discovery.eap(task_of(model))
        assert not torch.is_grad_enabled()
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(point.listening for point in model.hook_dict.values())


def test_a_task_notices_that_weights_have_changed():
    model = tiny(**WITH_MLPS)
    task = task_of(model)
    before = task.clean_value, discovery.cut_value(task), discovery.exact(task), discovery.eap(task)
    with torch.no_grad():
        model.blocks[0].attn.W_V.mul_(-2)
    new = task_of(model)
    after = new.clean_value, discovery.cut_value(new), discovery.exact(new), discovery.eap(new)
    found = task.clean_value, discovery.cut_value(task), discovery.exact(task), discovery.eap(task)
    for old, one, wanted in zip(before, found, after, strict=True):
        assert one.equals(wanted) and not one.equals(old)
    assert task.clean_run is task.clean_run  # kept while nothing changes


def test_a_task_runs_nothing_until_it_is_asked_and_notices_that_hooks_have_changed():
    model = tiny(**WITH_MLPS)
    runs = []
    model.blocks[0].hook_resid_pre.add_hook(lambda resid, hook: runs.append(resid.shape))
    task = task_of(model)
    assert not runs
    before = task.clean_value
    assert len(runs) == 1 and task.clean_value.equals(before) and len(runs) == 1
    model.blocks[0].hook_resid_post.add_hook(lambda resid, hook: 0 * resid)
    assert not task.clean_value.equals(before) and len(runs) == 2


def test_a_metric_of_the_batch_gives_the_mean_of_what_it_gives_of_examples():
    each, whole = (task_of(tiny(**SMALL), metric=one)
                   for one in (METRIC, lambda logits: METRIC(logits).mean()))  # fmt: skip
    for call in (discovery.exact, discovery.eap, lambda task: discovery.eap_ig(task, 2)):
        found = call(whole)
        assert found.sizes["example"] == 1
        assert np.allclose(found[..., 0], call(each).mean("example", skipna=False), equal_nan=True)
    kept = discovery.top(discovery.exact(whole), 9)
    assert np.isclose(discovery.faithfulness(whole, kept), discovery.faithfulness(each, kept))
    assert discovery.acdc(whole, 0.1).equals(discovery.acdc(each, 0.1))


def test_what_cannot_be_asked_is_refused_in_words():
    model = tiny(**SMALL)
    with pytest.raises(ValueError, match=r"\[3, 6\] and corrupted tokens \[3, 5\]"):
        Task(model, CLEAN, CORRUPTED[:, :5], METRIC)
    with pytest.raises(ValueError, match="one number for each of 3 examples"):
        discovery.eap(task_of(model, metric=lambda logits: logits.mean().expand(2)))
    with pytest.raises(ValueError, match=r"of the c.* run the metric gives"):
        discovery.eap(task_of(model, metric=lambda logits: logits[:, 0] / 0))
    with pytest.raises(ValueError, match="without layers"):
        discovery.exact(task_of(tiny(n_layers=0)))
    with pytest.raises(KeyError, match=r"no edge L1H0 > L0H0.Q: senders are .*'L1H1'"):
        discovery.circuit(model, [("L1H0", "L0H0.Q")])
    with pytest.raises(ValueError, match="wanted a boolean DataArray"):
        discovery.logits(task_of(model), discovery.edges(tiny(n_layers=1, **SMALL)))
    with pytest.raises(ValueError, match="at least 1"):
        discovery.eap_ig(task_of(model), 0)
    with pytest.raises(ValueError, match="wanted 99 of 42 edges"):
        discovery.top(discovery.eap(task_of(model)), 99)
    scores = discovery.eap(task_of(model))
    broken = scores.where((scores.sender != "L0H0") | (scores.receiver != "logits"))
    for choose in (discovery.top, discovery.greedy):
        with pytest.raises(ValueError, match="1 of the scores of edges are NaN"):
            choose(broken, 5)
