"""A head's logit effects are what it takes along when it is cut out."""

import numpy as np
import pytest
import torch

from analyses import logit_effects
from circuits import ground_truth
from tests.conftest import tiny_tokens


def test_logit_effects_are_what_the_head_takes_along_when_it_is_cut_out(variant):
    """An independent way: the frozen norm and W_U on the stream with the head and without it."""
    model, tokens = variant, tiny_tokens(1, 9)
    if model.cfg.n_layers == 0:
        with pytest.raises(ValueError, match="0 layers"):
            logit_effects.by_source(model, tokens)
        return
    effects = logit_effects.by_source(model, tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: True)
        final = cache["resid_post", model.cfg.n_layers - 1][0]
        kind = model.cfg.normalization_type
        scale = cache["ln_final.hook_scale"][0] if kind else 1.0
        gain = model.ln_final.w if kind in ("LN", "RMS") else 1.0

        def logits(stream):
            centred = stream - stream.mean(-1, keepdim=True) if kind in ("LN", "LNPre") else stream
            return centred / scale * gain @ model.W_U

        for layer in range(model.cfg.n_layers):
            for head in range(model.cfg.n_heads):
                without = final - cache["result", layer][0, :, head]
                change = logits(final) - logits(without)
                change = (change - change.mean(-1, keepdim=True))[:-1]
                expected = change.gather(1, tokens[0, 1:, None])[:, 0]
                got = effects.sel(layer=layer, head=head)
                np.testing.assert_allclose(got.sum("src")[:-1], expected, atol=2e-5)
                assert (got[-1] == 0).all() and (np.triu(got.values, 1) == 0).all()


def test_an_induction_head_raises_what_followed_through_the_place_it_looks_at():
    model = ground_truth.Induction(d_vocab=20, n_ctx=20).model
    tokens = torch.tensor([[3, 7, 11, 4, 3, 7, 11]])
    effects = logit_effects.by_source(model, tokens).sel(layer=1, head=0).values
    for dest in (4, 5):  # 3 -> 7 and 7 -> 11, from the places where they stood before
        assert effects[dest].argmax() == dest - 3
        assert effects[dest].max() > 5
    assert effects[:3].max() < 1e-6  # nothing to copy yet
