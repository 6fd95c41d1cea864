"""Cells are run together as memory allows, and what lies before an edit is not run again."""

from functools import partial

import pytest
import torch

from circuits import GPT
from circuits.interventions import Edit, batches, edit, sweep
from tests.benchmarks.bench_model import peak_mebibytes
from tests.conftest import tiny, tiny_tokens
from tests.interventions.experiments import TOKENS, caches, few, metric


def test_what_lies_before_the_edit_is_not_run_again(monkeypatch):
    model, runs = tiny(smeared_keys=True), []
    _, source = caches(model)
    cells = [[edit(model, ("resid_pre", 1), source, pos=p)] for p in (8, 3, 7)]
    forward = GPT.forward

    def noted(self, input, *args, **kwargs):
        runs.append((kwargs.get("start_at_layer"), list(input.shape)))
        return forward(self, input, *args, **kwargs)

    monkeypatch.setattr(GPT, "forward", noted)
    monkeypatch.setattr(batches, "SLACK", 4)
    seen = sweep(model, TOKENS, cells, metric, at=-1)
    assert runs == [(None, [4, 9]), (1, [4, 6, 12]), (1, [8, 2, 12])]
    runs.clear()
    assert not torch.allclose(seen[1], sweep(model, TOKENS, cells, metric, at=2)[1])
    assert runs == [(None, [4, 9])]  # the metric looks before all of them


@pytest.mark.parametrize("fields", [
    {"n_heads": 8}, {"n_heads": 16, "positional_embedding_type": "shortformer", "n_layers": 2},
    {"n_heads": 4, "d_mlp": 256, "act_fn": "solu_ln"}])  # fmt: skip
@pytest.mark.parametrize("points", ["hook_?_input", "attn.hook_result", "mlp.hook_post"])
def test_a_sweep_holds_no_more_than_its_bound(fields, points):
    """Also with edits of inputs and results of single heads, which only hooks compute."""
    model = tiny(dtype=torch.float32, **{"d_model": 64, "d_head": 8, "n_ctx": 32, **fields})
    if "mlp" in points and model.cfg.attn_only:
        return
    tokens, values = tiny_tokens(batch=4, pos=24), torch.zeros(())
    names = model.hook_names(f"blocks.*.{points}")
    cells = [[Edit(name, values, add=True)] for name in names for _ in range(48)]
    for memory in (8 * 2**20, 20 * 2**20):
        how = {"at": -1, "memory": memory}
        held = peak_mebibytes(partial(sweep, model, tokens, cells, metric, **how))
        assert held <= memory / 2**20, memory
    assert held > memory / 2**20 / 4  # nor much less


def test_the_bound_on_memory_bounds_the_batch():
    model = tiny()
    _, source = caches(model)
    sizes = []
    cells = [[edit(model, ("z", 0), source)] for _ in range(5)]
    sweep(model, TOKENS, cells, metric, memory=few(model), progress=sizes.append)
    assert sizes == [0, 2, 2, 1]
    sweep(model, TOKENS, cells, metric, progress=sizes.append)
    assert sizes[-1] == 5
