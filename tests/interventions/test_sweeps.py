"""Many experiments together give the same numbers as one run for each."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from circuits import GPT, interventions
from circuits.interventions import Edit, Sizes, apply_edits, as_hooks, batches, edit, sweep
from tests.benchmarks.bench_model import peak_mebibytes
from tests.conftest import tiny, tiny_tokens

TOKENS, OTHER = tiny_tokens(batch=4, pos=9), tiny_tokens(batch=4, pos=9, seed=5)


def metric(logits: torch.Tensor) -> torch.Tensor:
    """The largest logit less the logit of token 3, at the last position."""
    last = logits if logits.ndim == 2 else logits[:, -1]
    return last.amax(-1) - last[:, 3]


def caches(model: GPT):
    with torch.no_grad():
        return [model.run_with_cache(rows)[1] for rows in (TOKENS, OTHER)]


def one_by_one(model: GPT, cells) -> torch.Tensor:
    """The logits of one run for each cell."""
    with torch.no_grad():
        return torch.stack([model.run_with_hooks(TOKENS, fwd_hooks=as_hooks(c)) for c in cells])


def every_kind_of_cell(model: GPT, source):
    """One edit of each hook point in the cache, and some cells of several edits."""
    names = [name for name in source if name != "hook_tokens"]
    cells = [[edit(model, name, source)] for name in names]
    by_pos = ("hook_z", "hook_k", "hook_pattern", "resid_pre", "embed", "mlp_out", "normalized")
    cells += [[edit(model, name, source, pos=2 + i % 5)] for i, name in enumerate(names)
              if name.endswith(by_pos)]  # fmt: skip
    if model.cfg.n_layers > 1:
        cells += [[edit(model, ("z", 1), source, pos=p, head=h)] for p in (0, 8) for h in (0, 2)]
        cells += [[edit(model, ("pattern", 0), source, head=1), edit(model, ("v", 1), source)]]
        cells += [[edit(model, ("z", 0), source, pos=5), edit(model, ("v", 1), source, pos=3)]]
    return [*cells, []]


def test_a_sweep_gives_what_one_run_for_each_cell_gives(variant):
    _, source = caches(variant)
    cells = every_kind_of_cell(variant, source)
    expected, at = one_by_one(variant, cells), torch.tensor([1, -1, 0, 3])
    got = sweep(variant, TOKENS, cells, metric, memory=few(variant))
    assert torch.allclose(got, torch.stack([*map(metric, expected)]), rtol=0, atol=1e-10)
    got = sweep(variant, TOKENS, cells, metric, at=at)
    there = expected[:, torch.arange(4), at]
    assert torch.allclose(got, torch.stack([*map(metric, there)]), rtol=0, atol=1e-10)
    assert not any(point.has_active_hooks for point in variant.hook_dict.values())


def few(model: GPT, runs: int = 2) -> int:
    """The bytes for this number of runs at a time, with logits at all positions."""
    sizes = Sizes(model, TOKENS, every=True, by_position=True)
    return sizes.kept() + runs * sizes.run()


def test_a_run_patched_into_itself_is_the_run(variant):
    own, _ = caches(variant)
    cells = every_kind_of_cell(variant, own)
    with torch.no_grad():
        base = metric(variant(TOKENS))
    assert torch.allclose(sweep(variant, TOKENS, cells, metric), base.expand(len(cells), -1))


def test_all_heads_of_a_layer_are_its_attention_out(variant):
    _, source = caches(variant)
    for layer in range(variant.cfg.n_layers):
        heads = [edit(variant, ("z", layer), source, head=h) for h in range(variant.cfg.n_heads)]
        whole = [edit(variant, ("attn_out", layer), source)]
        one, other = sweep(variant, TOKENS, [heads, whole], metric)
        assert torch.allclose(one, other, atol=1e-9)


def test_the_stream_before_layer_0_carries_the_whole_other_run():
    model = tiny(positional_embedding_type="none")
    _, other = caches(model)
    with torch.no_grad():
        expected = metric(model(OTHER))
    cells = [[edit(model, ("resid_pre", layer), other)] for layer in range(2)]
    assert torch.allclose(sweep(model, TOKENS, cells, metric), expected.expand(2, -1))


def test_where_the_values_come_from():
    model = tiny()
    own, _ = caches(model)
    assert not interventions.zeros(own, ("z", 1)).any()
    mean = interventions.means(own, ("z", 1))
    assert torch.allclose(mean[0, 3], own["z", 1][:, 3].mean(0))
    overall = interventions.means(own, ("z", 1), by_position=False)
    assert torch.allclose(overall[0, 6], own["z", 1].mean((0, 1)))
    other = interventions.resample(own, ("z", 1), seed=3)
    same = (own["z", 1][:, None] == other[None]).flatten(2).all(-1)
    assert same.sum(0).tolist() == [1] * 4 and not same.diagonal().any()
    with pytest.raises(ValueError, match="at least 2 examples, got 1"):
        interventions.resample(model.run_with_cache(TOKENS[:1])[1], ("z", 1))


def test_frozen_patterns_hold_them_and_nothing_else():
    model = tiny()
    own, other = caches(model)
    hooks = interventions.as_hooks(interventions.frozen_patterns(model, own))
    with model.hooks(fwd_hooks=hooks):
        _, run = model.run_with_cache(OTHER)
    for layer in range(2):
        assert torch.equal(run["pattern", layer], own["pattern", layer])
    assert torch.equal(run["v", 0], other["v", 0])


def test_steering_adds_a_direction():
    model, direction = tiny(), torch.randn(12, dtype=torch.float64)
    own, _ = caches(model)
    for pos in (None, 2):
        hook = interventions.steer(direction, 1.5, pos)
        with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook)]):
            _, run = model.run_with_cache(TOKENS)
        moved = run["resid_pre", 1] - own["resid_pre", 1]
        here = slice(None) if pos is None else pos
        assert torch.allclose(moved[:, here], 1.5 * direction.expand_as(moved[:, here]))
        assert pos is None or not moved[:, 3:].any()


@pytest.mark.parametrize("where", ["progress", "metric"])
def test_an_interrupted_sweep_leaves_no_hook(where):
    model, calls = tiny(), []
    _, source = caches(model)

    def interrupted(thing):
        calls.append(thing)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return metric(thing) if where == "metric" else None

    how = {"progress": interrupted} if where == "progress" else {}
    with pytest.raises(KeyboardInterrupt):
        sweep(model, TOKENS, [[edit(model, ("z", 0), source)]],
              interrupted if where == "metric" else metric, **how)  # fmt: skip
    assert not any(point.has_active_hooks for point in model.hook_dict.values())


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


def test_hooks_that_are_attached_stay_in_force_at_their_positions():
    model = tiny()
    _, source = caches(model)

    def double(z: torch.Tensor, hook: object) -> torch.Tensor:
        changed = z.clone()
        changed[:, 5] *= 2
        return changed

    cells = [[edit(model, ("z", 0), source, pos=6)], [edit(model, ("resid_pre", 1), source, pos=3)]]
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_z", double)]):
        seen = sweep(model, TOKENS, cells, metric)
        expected = torch.stack([*map(metric, one_by_one(model, cells))])
    assert torch.allclose(seen, expected, rtol=0, atol=1e-10)
    assert not torch.allclose(seen, sweep(model, TOKENS, cells, metric))


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


def test_a_metric_that_is_no_number_of_examples_or_the_batch_is_refused_before_anything_runs():
    model, done = tiny(), []
    _, source = caches(model)
    for bad, words in [
        (lambda logits: metric(logits)[:3], r"a tensor \[4\], or one for all, .* gives \[3\]"),
        (lambda logits: logits, r"gives \[4, 9, 29\]"),
        (lambda logits: 1.0, "gives float"),
        (lambda logits: metric(logits) * torch.nan, "must be finite"),
    ]:
        with pytest.raises(ValueError, match=words):
            sweep(model, TOKENS, [[edit(model, ("z", 0), source)]], bad, progress=done.append)
    with pytest.raises(ValueError, match=r"are \[4, 9, 3, 5\], but the run .* 4 examples of 6"):
        sweep(model, TOKENS[:, :6], [[edit(model, ("z", 0), source)]], metric)
    assert not done


def test_places_that_do_not_exist_are_refused():
    model = tiny()
    _, source = caches(model)
    with pytest.raises(ValueError, match=r"has no heads to choose from, so head=1"):
        edit(model, ("resid_pre", 0), source, head=1)
    with pytest.raises(ValueError, match="has 3 of head, counted from 0; got head=3"):
        edit(model, ("z", 0), source, head=3)
    with pytest.raises(ValueError, match="has 9 of pos, counted from 0; got pos=9"):
        edit(model, ("z", 0), source, pos=9)
    with pytest.raises(KeyError, match="no hook point matches"):
        edit(model, ("zz", 0), source)
    with pytest.raises(ValueError, match="outside of 9 positions"):
        sweep(model, TOKENS, [[]], metric, at=9)


def test_a_hook_on_positions_is_active_in_a_sweep_from_every_layer():
    model = tiny(positional_embedding_type="shortformer")
    source, _ = caches(model)
    cells = [[edit(model, ("z", layer), source, pos=3, head=1)] for layer in (0, 1)]
    with model.hooks([("hook_pos_embed", lambda pos, hook: 0 * pos)]), torch.no_grad():
        found = sweep(model, OTHER, cells, metric)
        runs = [model.run_with_hooks(OTHER, fwd_hooks=as_hooks(cell)) for cell in cells]
        late = model(model(OTHER, stop_at_layer=1), start_at_layer=1)
        assert torch.allclose(found, torch.stack([metric(run) for run in runs]))
        assert torch.allclose(late, model(OTHER))
    assert not torch.allclose(late, model(OTHER))


def test_edits_leave_what_other_threads_run_alone():
    model = tiny()
    source, _ = caches(model)
    cell = [edit(model, ("z", 0), source)]
    with torch.no_grad(), ThreadPoolExecutor(1) as other, apply_edits(model, [cell]):
        elsewhere, here = other.submit(model, OTHER).result(), model(OTHER)
    assert torch.allclose(elsewhere, model(OTHER)) and not torch.allclose(here, model(OTHER))
