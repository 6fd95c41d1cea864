"""The run of a circuit is the clean run with all edges and the corrupted one with none."""

import numpy as np
import torch

from analyses import discovery, patching
from analyses.causal.discovery.runs import writes_of
from circuits import GPT
from circuits.decomposition import stream
from tests.causal.discovery.tasks import CLEAN, CORRUPTED, DIFFERENCE, WITH_MLPS, task_of
from tests.conftest import tiny


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
    assert np.allclose(task.clean_value, DIFFERENCE(run(variant, CLEAN)))


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
        biases = stream(model, caches[0]) - writes_of(model, caches[0]).sum(0)
        mean = writes_of(model, caches[1]).mean(1).sum(0)
        for by, left in [("zero", biases), ("mean", biases + mean)]:
            logits = model.unembed(model.ln_final(left))[:, -1]
            assert torch.allclose(discovery.logits(task_of(model, by), none), logits), by
