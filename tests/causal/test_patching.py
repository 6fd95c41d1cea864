"""Patching: the values, the places and the effects, on circuits with a known answer."""

import numpy as np
import pytest
import torch
from xarray import DataArray

from analyses import Task, ablation, attribution, idealised, in_context, metrics, patching, prompts
from analyses.causal.path_patching import path_patching
from circuits import GPT, ground_truth
from circuits.interventions import as_hooks, edit
from tests.conftest import tiny, tiny_tokens

TOKENS, OTHER = tiny_tokens(batch=4, pos=8), tiny_tokens(batch=4, pos=8, seed=5)
RIGHT, WRONG = torch.tensor([3, 1, 4, 1]), torch.tensor([5, 9, 2, 6])
METRIC = metrics.logit_difference(RIGHT, WRONG)


def cache_of(model: GPT, tokens: torch.Tensor):
    with torch.no_grad():
        return model.run_with_cache(tokens)[1]


def by_hand(model: GPT, cell) -> np.ndarray:
    with torch.no_grad():
        return METRIC(model.run_with_hooks(TOKENS, fwd_hooks=as_hooks(cell))).numpy()


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


def test_metrics_are_what_they_are_called():
    logits = torch.randn(4, 6, 29, dtype=torch.float64)
    last, every = logits[:, -1], torch.arange(4)
    log_p = last.log_softmax(-1)
    for metric, expected in [
        (METRIC, last[every, RIGHT] - last[every, WRONG]),
        (metrics.loss(RIGHT), -log_p[every, RIGHT]),
        (metrics.probability(RIGHT), log_p.exp()[every, RIGHT]),
        (metrics.divergence(logits[:, 0]),
         (logits[:, 0].softmax(-1) * (logits[:, 0].log_softmax(-1) - log_p)).sum(-1)),
    ]:  # fmt: skip
        assert torch.allclose(metric(logits), expected) and metric(last).equal(metric(logits))
    assert torch.allclose(metrics.divergence(last)(last), torch.zeros(4).double(), atol=1e-12)


def test_the_in_context_score_as_a_metric_is_that_of_the_analysis():
    model, tokens = tiny(n_ctx=64), tiny_tokens(batch=4, pos=60)
    with torch.no_grad():
        values = metrics.in_context_score(tokens)(model(tokens))
    score = in_context.score(in_context.loss_by_index(model, tokens))
    assert float(values.mean()) == pytest.approx(float(score), abs=1e-6)


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


def induction_task() -> Task:
    """Random tokens twice, without the last token; and the same with another first copy."""
    model = ground_truth.Induction().model
    clean = prompts.repeated(model, 8, batch=6)[:, :-1]
    right = prompts.repeated(model, 8, batch=6)[:, -1]
    corrupted = clean.clone()
    corrupted[:, 1:9] = prompts.random_tokens(model, 8, batch=6, seed=9)[:, 1:]
    return Task(model, clean, corrupted, metrics.probability(right))


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
