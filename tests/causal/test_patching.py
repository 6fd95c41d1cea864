"""Patching: what is put in, where, and what comes of it; on circuits whose answer is known."""

import numpy as np
import pytest
import torch

from analyses import ablation, attribution, idealised, metrics, patching, prompts
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
    source = cache_of(variant, OTHER)
    seen = patching.positions(variant, TOKENS, source, METRIC, place="attn_out", at=at)
    for layer, pos in [(0, 3), (1, 7)]:
        cell = [edit(variant, ("attn_out", layer), source, pos=pos)]
        assert np.allclose(seen.sel(layer=layer, pos=pos), by_hand(variant, cell))
    seen = patching.heads(variant, TOKENS, source, METRIC, part="pattern", by_position=True, at=at)
    cell = [edit(variant, ("pattern", 1), source, pos=6, head=2)]
    assert np.allclose(seen.sel(layer=1, head=2, pos=6), by_hand(variant, cell))
    with torch.no_grad():
        assert np.allclose(seen.base, METRIC(variant(TOKENS)))
        assert np.allclose(seen.source, METRIC(variant(OTHER)))


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


def test_a_metric_of_the_batch_gives_the_mean_of_what_it_gives_of_examples():
    model = tiny()
    clean, source = cache_of(model, TOKENS), cache_of(model, OTHER)
    edges = {"senders": ["L0H0"], "receivers": ["L1H1.K", "logits"]}
    for call in (
        lambda metric: patching.heads(model, TOKENS, source, metric, at=-1),
        lambda metric: patching.positions(model, TOKENS, source, metric),
        lambda metric: attribution.heads(model, TOKENS, source, metric),
        lambda metric: attribution.positions(model, TOKENS, source, metric),
        lambda metric: path_patching(model, TOKENS, clean, source, metric, **edges),
        lambda metric: ablation.ablated(model, TOKENS, ["L0H1", "embed"], metric=metric),
        lambda metric: idealised.substituted(model, TOKENS, ["L0H1"], metric=metric),
    ):
        each = call(METRIC)
        for whole in (call(lambda x: METRIC(x).mean()), call(lambda x: METRIC(x).mean()[None])):
            assert whole.dims == each.dims and whole.sizes["example"] == 1
            assert np.allclose(whole.isel(example=0), each.mean("example"))
            assert np.allclose(whole.base.isel(example=0), each.base.mean("example"))
    with pytest.raises(ValueError, match="at least two examples, got 1"):
        patching.summary(patching.heads(model, TOKENS, source, lambda x: METRIC(x).mean()))


def induction_task():
    """R said twice up to its last token but one, and the same with another first copy."""
    model = ground_truth.Induction().model
    clean = prompts.repeated(model, 8, batch=6)[:, :-1]
    right = prompts.repeated(model, 8, batch=6)[:, -1]
    corrupted = clean.clone()
    corrupted[:, 1:9] = prompts.random_tokens(model, 8, batch=6, seed=9)[:, 1:]
    return model, clean, corrupted, metrics.probability(right)


def test_the_built_induction_circuit_is_found_where_it_was_built():
    model, clean, corrupted, metric = induction_task()
    source = cache_of(model, clean)
    seen = patching.heads(model, corrupted, source, metric, at=-1)
    share = patching.recovered(seen)
    assert share.sel(layer=1, head=0) > 0.99
    by_pos = patching.recovered(
        patching.heads(model, corrupted, source, metric, by_position=True, at=-1)
    )
    last = clean.shape[1] - 1
    assert by_pos.sel(layer=1, head=0, pos=last) > 0.99
    assert abs(by_pos.sel(layer=1, head=0, pos=slice(0, last - 1))).max() < 1e-6
    keys = patching.recovered(patching.heads(model, clean, cache_of(model, corrupted), metric,
                                             part="k", at=-1))  # fmt: skip
    assert keys.sel(layer=1, head=0) > 0.5  # the previous-token head's work lies in its keys
    p = patching.summary(seen)
    assert p.p.sel(layer=1, head=0) < 0.05 and (p.change.sel(layer=1, head=0) > 0.5)


def test_a_long_sweep_shows_how_far_it_is_and_gives_the_same(capsys):
    model = tiny()
    source = cache_of(model, OTHER)
    silent = patching.positions(model, TOKENS, source, METRIC)
    assert capsys.readouterr().out == ""
    assert silent.equals(patching.positions(model, TOKENS, source, METRIC, bar=True))
    assert "resid_pre patched" in (shown := capsys.readouterr().out) and "100%" in shown


def test_on_an_untrained_model_no_patch_recovers_what_means_anything():
    """Patches of random heads change a probability by next to nothing, either way."""
    model = GPT(tiny(d_model=15).cfg)
    seen = patching.heads(model, TOKENS, cache_of(model, OTHER), metrics.probability(RIGHT))
    assert abs(patching.summary(seen).change).max() < 1e-3


def test_what_does_not_fit_is_refused():
    model = tiny()
    with pytest.raises(ValueError, match=r"a run on tokens \[4, 8\], and those to patch are"):
        patching.heads(model, TOKENS[:, :5], cache_of(model, OTHER), METRIC)
    with pytest.raises(ValueError, match="no layers"):
        patching.heads(tiny(n_layers=0), TOKENS, cache_of(tiny(n_layers=0), OTHER), METRIC)
    with pytest.raises(ValueError, match="one number for each of 4 examples"):
        patching.heads(model, TOKENS, cache_of(model, OTHER), lambda x: METRIC(x)[:3])
    with torch.no_grad():
        _, few = model.run_with_cache(OTHER, names_filter=["hook_embed", "blocks.*.hook_resid_p*"])
    with pytest.raises(KeyError, match="hook_z' is not in the cache; names_filter left it out"):
        patching.heads(model, TOKENS, few, METRIC)
    same = patching.heads(model, TOKENS, cache_of(model, TOKENS), METRIC)
    with pytest.raises(ValueError, match="nothing to recover"):
        patching.recovered(same)
    with pytest.raises(ValueError, match="at least two examples"):
        patching.summary(same.isel(example=[0]))
