"""The cache computes what residual does, and keeps what flags say."""

import pytest
import torch

from circuits import residual
from tests.conftest import tiny_tokens
from tests.hooked_transformer.models import ported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KINDS = [
    {"positional_embedding_type": "shortformer", "normalization_type": None},
    {"positional_embedding_type": "standard", "d_mlp": 6, "act_fn": "gelu"},
    {"positional_embedding_type": "none", "bias": False, "normalization_type": "RMSPre"},
]


@pytest.mark.parametrize("fields", KINDS, ids=lambda f: f["positional_embedding_type"])
def test_what_the_cache_of_transformer_lens_computes_is_what_residual_does(fields):
    model = ported(**fields)
    final, n = model.ln_final, model.cfg.n_layers
    with torch.no_grad():
        logits, cache = model.run_with_cache(tiny_tokens())
        layers = residual.components(model, cache, by="layer")
        stack, labels = cache.decompose_resid(return_labels=True)
        assert len(labels) == len(layers) and torch.allclose(stack, layers.stack)
        assert torch.allclose(stack.sum(0), cache["resid_post", -1])
        assert torch.allclose(cache.accumulated_resid(incl_mid=True),
                              residual.streams(model, cache, mid=True))  # fmt: skip
        heads = torch.cat([residual.head_results(model, cache, at) for at in range(n)], 2)
        assert torch.allclose(cache.stack_head_results(), heads.movedim(2, 0))
        assert cache.stack_activation("pattern").equal(
            torch.stack([cache["pattern", at] for at in range(n)]))  # fmt: skip
        every = cache.get_full_resid_decomposition(expand_neurons=False)
        assert torch.allclose(every.sum(0), cache["resid_post", -1])
        scaled = cache.apply_ln_to_stack(stack)
        w = getattr(final, "w", None)
        read = residual.through_norm(model, cache, stack)
        assert torch.allclose(scaled if w is None else scaled * w, read)
        if w is None:  # theirs reads W_U as if the gain were folded into it
            mine = residual.logit_attribution(model, cache, 3).stack[: model.cfg.n_heads + 1]
            theirs = cache.logit_attrs(stack, tokens=3)
            assert torch.allclose(theirs[0], mine[0])
            b_U = 0 if model.unembed.b_U is None else model.unembed.b_U[3]
            assert torch.allclose(theirs.sum(0) + b_U, logits[..., 3])


def test_a_cache_keeps_what_flags_say_and_stays_what_it_is():
    model, tokens = ported(d_mlp=6, act_fn="relu"), tiny_tokens(batch=1)
    _, plain = model.run_with_cache(tokens)
    with pytest.raises(KeyError, match=r"kept only when named: names_filter='blocks.0.attn.hook_"):
        plain["result", 0]
    plain.compute_head_results()
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    assert model.cfg.use_attn_result and model.cfg.use_hook_mlp_in
    _, cache = model.run_with_cache(tokens)
    assert torch.allclose(plain["result", 1], cache["result", 1])
    assert cache["k_input", 1].shape == (1, 7, 3, 12) and "blocks.0.hook_mlp_in" in cache
    _, kept = model.run_with_cache(tokens, return_cache_object=False, names_filter="*hook_z")
    assert type(kept) is dict and torch.allclose(kept["blocks.0.attn.hook_z"], cache["z", 0])
    cache.remove_batch_dim()  # as a statement: it changes the cache itself, as does `to`
    assert cache["result", 1].shape == (7, 3, 12) and not cache.has_batch_dim
    assert cache.remove_batch_dim() is cache and cache.stack_head_results().shape == (6, 7, 12)
    cache.to(torch.float32)
    assert cache["z", 0].dtype == torch.float32 and cache["result", 1].shape == (7, 3, 12)
    cache.cache_dict["blocks.0.attn.hook_z"] = cache["z", 1]
    assert cache["z", 0] is cache["z", 1]
    model.set_use_attn_result(False)
    assert ("result", 0) not in model.run_with_cache(tokens)[1]
    with pytest.raises(
        AttributeError, match=r"no 'logit_lens' here: write circuits.decomposition.residual.logit_l"
    ):
        cache.logit_lens()
    with pytest.raises(ValueError, match="another model's run"):
        residual.components(ported(seed=1, d_mlp=6, act_fn="relu"), cache)
