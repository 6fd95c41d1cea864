"""Many experiments together give the same numbers as one run for each."""

import pytest
import torch

from circuits import GPT
from circuits.interventions import as_hooks, edit, sweep
from tests.conftest import tiny
from tests.interventions.experiments import OTHER, TOKENS, caches, few, metric


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
