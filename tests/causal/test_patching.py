"""Patching gives each cell its own run, and finds circuits where they were built."""

import numpy as np
import pytest
import torch
from xarray import DataArray

from analyses import Task, metrics, patching
from circuits import GPT
from circuits.interventions import edit
from tests.causal.by_hand import METRIC, OTHER, RIGHT, TOKENS, by_hand, cache_of, induction_task
from tests.conftest import tiny


@pytest.mark.parametrize("at", [None, -1])
def test_each_cell_is_its_own_run(variant, at):
    if not variant.cfg.n_layers:
        return
    source, task = cache_of(variant, OTHER), Task(variant, OTHER, TOKENS, METRIC, at=at)
    seen = patching.positions(task, place="attn_out")
    for layer, pos in [(0, 3), (1, 7)]:
        cell = [edit(variant, ("attn_out", layer), source, pos=pos)]
        assert np.allclose(seen.sel(layer=layer, pos=pos), by_hand(variant, cell))
    seen = patching.heads(task, part="pattern", by_position=True)
    cell = [edit(variant, ("pattern", 1), source, pos=6, head=2)]
    assert np.allclose(seen.sel(layer=1, head=2, pos=6), by_hand(variant, cell))
    with torch.no_grad():
        assert np.allclose(seen.base, METRIC(variant(TOKENS)))
        assert np.allclose(seen.source, METRIC(variant(OTHER)))
    reversed_task = Task(variant, TOKENS, OTHER, METRIC, at=at)
    assert seen.equals(
        patching.heads(reversed_task, part="pattern", by_position=True, into="clean")
    )


def test_the_built_induction_circuit_is_found_where_it_was_built():
    task = induction_task()
    seen = patching.heads(task)
    share = patching.recovery(seen)
    assert share.sel(layer=1, head=0) > 0.99
    by_pos = patching.recovery(patching.heads(task, by_position=True))
    last = task.clean.shape[1] - 1
    assert by_pos.sel(layer=1, head=0, pos=last) > 0.99
    assert abs(by_pos.sel(layer=1, head=0, pos=slice(0, last - 1))).max() < 1e-6
    keys = patching.recovery(patching.heads(task, part="k", into="clean"))
    assert keys.sel(layer=1, head=0) > 0.5  # the previous-token head's work lies in its keys
    p = patching.summary(seen)
    assert p.p.sel(layer=1, head=0) < 0.05 and (p.change.sel(layer=1, head=0) > 0.5)
    assert p.p_max.sel(layer=1, head=0) < 0.05


def test_among_many_cells_of_chance_some_single_p_is_small_and_p_max_is_rarely():
    rng = np.random.default_rng(0)
    first, single = [], []
    for _ in range(100):
        values = DataArray(rng.normal(size=(4, 10, 12)), dims=("layer", "head", "example"))
        zero = values.assign_coords(base=("example", np.zeros(12)))
        found = patching.summary(zero, permutations=199)
        first.append(float(found.p_max.min()))
        single.append(float(found.p.min()))
        assert (found.p_max >= found.p - 1e-12).mean() > 0.99
    assert np.mean(np.array(first) <= 0.05) <= 0.12 and np.mean(np.array(single) <= 0.05) > 0.7


def test_a_long_sweep_shows_how_far_it_is_and_gives_the_same(capsys):
    task = Task(tiny(), OTHER, TOKENS, METRIC)
    silent = patching.positions(task)
    assert capsys.readouterr().out == ""
    assert silent.equals(patching.positions(task, progress=True))
    assert "resid_pre patched" in (shown := capsys.readouterr().out) and "100%" in shown


def test_on_an_untrained_model_no_patch_recovers_what_means_anything():
    """Patches of random heads change a probability very little, in both directions."""
    model = GPT(tiny(d_model=15).cfg)
    seen = patching.heads(Task(model, OTHER, TOKENS, metrics.probability(RIGHT)))
    assert abs(patching.summary(seen).change).max() < 1e-3


def test_what_does_not_fit_is_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"\[4, 8\] and corrupted tokens \[4, 5\]"):
        Task(model, OTHER, TOKENS[:, :5], METRIC)
    with pytest.raises(ValueError, match="no layers"):
        patching.heads(Task(tiny(n_layers=0), OTHER, TOKENS, METRIC))
    with pytest.raises(ValueError, match="one number for each of 4 examples"):
        patching.heads(Task(model, OTHER, TOKENS, lambda x: METRIC(x)[:3]))
    with pytest.raises(ValueError, match="it cannot run again"):
        patching.heads(Task(model, OTHER, cache_of(model, TOKENS), METRIC))
    with torch.no_grad():
        _, few = model.run_with_cache(OTHER, names_filter=["hook_embed", "blocks.*.hook_resid_p*"])
    with pytest.raises(KeyError, match="hook_z' is not in the cache; names_filter left it out"):
        patching.heads(Task(model, TOKENS, few, METRIC), into="clean")
    same = patching.heads(Task(model, TOKENS, TOKENS, METRIC))
    with pytest.raises(ValueError, match="nothing to recover"):
        patching.recovery(same)
    with pytest.raises(ValueError, match="at least two examples"):
        patching.summary(same.isel(example=[0]))
