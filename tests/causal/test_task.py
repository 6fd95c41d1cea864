"""A task runs what it is asked for once, and again where weights or hooks have changed."""

import numpy as np
import pytest
import torch

from analyses import Task, ablation, attribution, discovery, idealised, patching
from analyses.causal.path_patching import path_patching
from tests.causal.by_hand import METRIC, OTHER, TOKENS
from tests.causal.discovery.tasks import WITH_MLPS, task_of
from tests.conftest import tiny


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
    model = tiny()
    edges = {"senders": ["L0H0"], "receivers": ["L1H1.K", "logits"]}

    def task(metric) -> Task:
        return Task(model, TOKENS, OTHER, metric)

    for call in (
        patching.heads,
        patching.positions,
        attribution.heads,
        attribution.positions,
        lambda task: path_patching(task, **edges),
        lambda task: ablation.ablate(task, ["L0H1", "embed"]),
        lambda task: idealised.substitute(task, ["L0H1"]),
    ):
        each = call(task(METRIC))
        for metric in (lambda x: METRIC(x).mean(), lambda x: METRIC(x).mean()[None]):
            whole = call(task(metric))
            assert whole.dims == each.dims and whole.sizes["example"] == 1
            assert np.allclose(whole.isel(example=0), each.mean("example"))
            assert np.allclose(whole.base.isel(example=0), each.base.mean("example"))
    with pytest.raises(ValueError, match="at least two examples, got 1"):
        patching.summary(patching.heads(task(lambda x: METRIC(x).mean())))
