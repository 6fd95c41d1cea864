"""The stream is the sum of its components, the logit the sum of their attributions."""

import pytest
import torch

from circuits import load, residual
from tests.conftest import tiny, tiny_tokens
from tests.decomposition.conftest import close


def test_components_sum_to_the_stream_at_every_place(run):
    model, cache, _, dtype = run
    n = model.cfg.n_layers
    for by in ("head", "layer"):
        for layer in (*range(n + 1), None):
            parts = residual.components(model, cache, layer, by=by)
            assert close(parts.total, parts.whole, dtype), repr(parts)
            assert parts.remainder.abs().max() < 1e-4
        for layer in range(n):
            if model.cfg.parallel_attn_mlp:
                with pytest.raises(ValueError, match="in a parallel block heads and MLP both read"):
                    residual.components(model, cache, layer, mid=True, by=by)
                continue
            parts = residual.components(model, cache, layer, mid=True, by=by)
            assert parts.whole is cache["resid_mid", layer]
            assert close(parts.total, parts.whole, dtype)


def test_components_come_in_stream_order_under_their_names():
    model = tiny(d_mlp=6, act_fn="relu", n_layers=1, positional_embedding_type="standard")
    _, cache = model.run_with_cache(tiny_tokens())
    parts = residual.components(model, cache)
    names = ["embed", "pos", "L0H0", "L0H1", "L0H2", "L0 b_O", "MLP0", "L0 b_out"]
    assert list(parts) == names
    assert parts["embed"].equal(cache["embed"]) and parts["pos"].equal(cache["pos_embed"])
    assert list(residual.components(model, cache, 0, mid=True)) == names[:6]
    assert list(residual.components(model, cache, by="layer")) == [
        "embed", "pos", "L0 attn", "L0 mlp",
    ]  # fmt: skip
    shortformer = tiny(positional_embedding_type="shortformer", bias=False, n_layers=1)
    _, cache = shortformer.run_with_cache(tiny_tokens())
    assert list(residual.components(shortformer, cache)) == ["embed", "L0H0", "L0H1", "L0H2"]


def test_attributions_sum_to_the_logit_the_difference_and_the_projection(run):
    model, cache, logits, dtype = run
    targets = tiny_tokens(seed=5)
    one = residual.logit_attribution(model, cache, 3)
    assert close(one.total, logits[..., 3], dtype) and close(one.whole, logits[..., 3], dtype)
    each = residual.logit_attribution(model, cache, targets)
    assert close(each.total, logits.gather(-1, targets[..., None]).squeeze(-1), dtype)
    pair = residual.logit_attribution(model, cache, targets, against=3)
    assert close(pair.total, each.whole - one.whole, dtype)
    along = residual.logit_attribution(model, cache, direction=model.W_U[:, 3])
    b_U = 0 if model.unembed.b_U is None else model.unembed.b_U[3]
    assert close(along.total + b_U, logits[..., 3], dtype)


def test_an_attribution_is_what_the_logit_loses_without_the_component():
    """The oracle runs the model with the final scale frozen."""
    model = tiny(normalization_type=None)
    logits, cache = model.run_with_cache(tiny_tokens())
    parts = residual.logit_attribution(model, cache, 7)

    def silence(z, hook):
        z[:, :, 2] = 0

    without = model.run_with_hooks(tiny_tokens(), fwd_hooks=[("blocks.1.attn.hook_z", silence)])
    assert torch.allclose(logits[..., 7] - without[..., 7], parts["L1H2"])


def test_the_logit_lens_ends_at_the_model_and_starts_at_the_direct_path(run):
    model, cache, logits, dtype = run
    mid = not model.cfg.parallel_attn_mlp
    lens = residual.logit_lens(model, cache, mid=mid)
    assert lens.places == residual.places(model, mid=mid) and lens.places[-1] == "final"
    assert close(lens.kl[-1], torch.zeros_like(lens.kl[-1]), dtype)
    assert (lens.kl > -1e-4).all() and (lens.rank[-1] == 0).all()
    assert lens.top[-1].equal(logits.argmax(-1))
    assert close(lens.log_prob[-1], logits.log_softmax(-1).amax(-1), dtype)
    streams = residual.streams(model, cache, mid=mid)
    assert len(streams) == len(lens.places) == len(lens.kl)
    for stream, top, kl in zip(streams, lens.top, lens.kl, strict=True):
        here = model.unembed(model.ln_final(stream))  # its own scale, as if it were the last
        assert top.equal(here.argmax(-1))
        q, p = here.log_softmax(-1), logits.log_softmax(-1)
        expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
        assert close(kl, expected, dtype)
    chosen = residual.logit_lens(model, cache, tiny_tokens(seed=9))
    log_probs = logits.log_softmax(-1).gather(-1, tiny_tokens(seed=9)[..., None])
    assert close(chosen.log_prob[-1], log_probs.squeeze(-1), dtype)
    assert chosen.rank[-1].equal((logits.log_softmax(-1) > log_probs).sum(-1))


def test_they_agree_with_transformer_lens_on_our_model():
    """The ActivationCache of TransformerLens decomposes our run: an independent oracle."""
    lens = pytest.importorskip("transformer_lens")
    model = tiny(d_mlp=6, act_fn="gelu", positional_embedding_type="standard", bias=False)
    _, cache = model.run_with_cache(tiny_tokens())
    theirs = lens.ActivationCache(dict(cache), model)
    stack, labels = theirs.decompose_resid(return_labels=True)
    ours = residual.components(model, cache, by="layer")
    assert len(labels) == len(ours) and torch.allclose(stack, ours.stack)
    streams = theirs.accumulated_resid(incl_mid=True)
    assert torch.allclose(streams, residual.streams(model, cache, mid=True))
    applied = theirs.apply_ln_to_stack(stack, layer=-1)
    assert torch.allclose(applied * model.ln_final.w, residual.through_norm(model, cache, stack))


def test_a_text_token_attributes_to_the_logit_of_a_model_that_ships():
    model = load("attn-only-2l")
    with torch.no_grad():
        logits, cache = model.run_with_cache("The captain of the ship said that the captain of the")
        parts = residual.logit_attribution(model, cache, " sh")
    assert torch.allclose(parts.total, logits[..., model.to_single_token(" sh")], atol=1e-4)
