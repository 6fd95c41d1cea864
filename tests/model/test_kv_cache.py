"""Reading on from keys and values gives what reading all of it gives, wherever it is cut."""

from itertools import pairwise

import pytest
import torch

from circuits import GPT
from circuits.model import KeyValueCache
from tests.conftest import tiny, tiny_tokens

TOKENS = tiny_tokens(batch=2, pos=8)


def read_on(model: GPT, *cuts: int) -> torch.Tensor:
    """Logits of TOKENS, read piece by piece."""
    past = KeyValueCache.init_cache(model.cfg, len(TOKENS))
    places = [0, *cuts, TOKENS.shape[1]]
    pieces = [TOKENS[:, a:b] for a, b in pairwise(places)]
    return torch.cat([model(piece, past_kv_cache=past) for piece in pieces], 1)


def test_logits_are_those_of_the_whole_wherever_it_is_cut(variant):
    tokens, past = TOKENS[:, :6], KeyValueCache.init_cache(variant.cfg, 2)
    with torch.no_grad():
        whole = variant(tokens)
        one_by_one = [variant(token[:, None], past_kv_cache=past) for token in tokens.unbind(1)]
        assert torch.allclose(torch.cat(one_by_one, 1), whole, rtol=0, atol=1e-10)
        for cut in range(6):
            rest = variant(tokens[:, cut:], past_kv_cache=past.upto(cut))
            assert torch.allclose(rest, whole[:, cut:], rtol=0, atol=1e-10), cut


def test_every_hook_sees_the_new_tokens_with_all_their_sources(variant):
    model, past = variant, KeyValueCache.init_cache(variant.cfg, 2)
    everything = list(model.hook_dict)
    _, whole = model.run_with_cache(TOKENS, names_filter=everything)
    model(TOKENS[:, :5], past_kv_cache=past)
    _, new = model.run_with_cache(TOKENS[:, 5:], names_filter=everything, past_kv_cache=past)
    assert set(new) == set(everything)
    for name in everything:
        rows = (slice(None),) * model.hook_dict[name].pos_dim + (slice(5, None),)
        assert torch.allclose(new[name], whole[name][rows], rtol=0, atol=1e-10), name
    if model.cfg.n_layers:
        assert new["attn_scores", 0].shape == (2, model.cfg.n_heads, 3, 8)
        assert new["attn_scores", 0].isinf().equal(whole["attn_scores", 0][:, :, 5:].isinf())


def test_what_a_hook_makes_of_keys_and_values_stays():
    model = tiny(smeared_keys=True)
    hooks = [("blocks.*.attn.hook_[kv]", lambda x, hook: 2 * x + 1)]
    with torch.no_grad(), model.hooks(fwd_hooks=hooks):
        assert torch.allclose(read_on(model, 3, 4), model(TOKENS), rtol=0, atol=1e-10)


def test_gradients_flow_through_what_was_read_before():
    model = tiny(smeared_keys=True, d_mlp=7, act_fn="gelu")
    parameters = list(model.parameters())
    whole = torch.autograd.grad(model(TOKENS).square().sum(), parameters)
    again = torch.autograd.grad(read_on(model, 2, 3, 5).square().sum(), parameters)
    assert all(torch.allclose(a, b) for a, b in zip(whole, again, strict=True))


def test_a_run_that_breaks_off_leaves_the_past_as_it_was():
    model, past = tiny(smeared_keys=True), KeyValueCache.init_cache(tiny().cfg, 2)

    def interrupt(z: torch.Tensor, hook: object) -> None:
        raise KeyboardInterrupt

    with torch.no_grad():
        model(TOKENS[:, :5], past_kv_cache=past)
        with pytest.raises(KeyboardInterrupt):
            model.run_with_hooks(TOKENS[:, :2], past_kv_cache=past,
                                 fwd_hooks=[("blocks.1.attn.hook_z", interrupt)])  # fmt: skip
        assert past.n == 5
        rest = model(TOKENS[:, 5:], past_kv_cache=past)
        assert torch.allclose(rest, model(TOKENS)[:, 5:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("shortformer", [True, False])
def test_a_frozen_past_goes_before_many_runs_from_any_layer(shortformer):
    model = tiny(positional_embedding_type="shortformer" if shortformer else "standard",
                 smeared_keys=True)  # fmt: skip
    past = KeyValueCache.init_cache(model.cfg, 2)
    with torch.no_grad():
        whole, cache = model.run_with_cache(TOKENS, past_kv_cache=past)
        first = past.upto(6)
        for _ in range(2):
            rows = cache["resid_pre", 1][:, 6:].repeat(3, 1, 1)
            logits = model(rows, start_at_layer=1, past_kv_cache=first)
            assert torch.allclose(logits, whole[:, 6:].repeat(3, 1, 1), rtol=0, atol=1e-10)
    assert (past.n, first.n) == (8, 6)
    first.unfreeze()
    with pytest.raises(ValueError, match="adds 1 of 2 layers to past_kv_cache"):
        model(rows[:2], start_at_layer=1, past_kv_cache=first)
    first.freeze()
    with pytest.raises(ValueError, match="a batch of 2, got 3 rows"):
        model(rows[:3], start_at_layer=1, past_kv_cache=first)


def test_what_cannot_go_on_is_refused():
    model, past = tiny(), KeyValueCache.init_cache(tiny().cfg, 2)
    model(tiny_tokens(2, 10), past_kv_cache=past)
    for tokens, words in [
        (tiny_tokens(2, 7), "10 tokens in past_kv_cache and 7 new ones are 1 more than"),
        (tiny_tokens(3, 2), "for a batch of 2, got 3 rows"),
    ]:
        with pytest.raises(ValueError, match=words):
            model(tokens, past_kv_cache=past)
    with pytest.raises(ValueError, match="has 2 layers, and the model has 3"):
        tiny(n_layers=3)(TOKENS, past_kv_cache=past)
    with pytest.raises(ValueError, match="the past has 10 positions, not 11"):
        past.upto(11)
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1, got 0"):
        KeyValueCache.init_cache(model.cfg, 0)
