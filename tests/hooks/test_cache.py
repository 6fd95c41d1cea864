"""A cache finds what it holds under every name, and says what it lacks."""

import pytest
import torch

from circuits.hooks import Cache, act_name
from tests.conftest import tiny, tiny_tokens


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("pattern", 3), "blocks.3.attn.hook_pattern"),
        (("attn", 3), "blocks.3.attn.hook_pattern"),
        (("z", 0), "blocks.0.attn.hook_z"),
        (("key", 2), "blocks.2.attn.hook_k"),
        (("query1",), "blocks.1.attn.hook_q"),
        (("k1",), "blocks.1.attn.hook_k"),
        (("scale1ln1",), "blocks.1.ln1.hook_scale"),
        (("normalized", 2, "ln2"), "blocks.2.ln2.hook_normalized"),
        (("mlp_pre", 1), "blocks.1.mlp.hook_pre"),
        (("mlp_post", "3"), "blocks.3.mlp.hook_post"),
        (("k", 6, "a"), "blocks.6.attn.hook_k"),
        (("resid_post", 1), "blocks.1.hook_resid_post"),
        (("post", 1), "blocks.1.mlp.hook_post"),
        (("scale", 0, "ln1"), "blocks.0.ln1.hook_scale"),
        (("q_input", 0), "blocks.0.hook_q_input"),
        (("scale",), "ln_final.hook_scale"),
        (("embed",), "hook_embed"),
        (("blocks.0.attn.hook_q",), "blocks.0.attn.hook_q"),
    ],
)
def test_short_names_are_those_of_transformer_lens(key, name):
    from transformer_lens.utilities import get_act_name

    assert act_name(*key) == name
    assert get_act_name(*key) == name


def test_negative_layers_count_from_the_last():
    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens())
    assert cache["pattern", -1] is cache["blocks.1.attn.hook_pattern"]
    assert ("pattern", -1) in cache and ("pattern", 5) not in cache and "nonsense" not in cache


def test_a_missing_name_says_why_it_is_missing():
    model, tokens = tiny(), tiny_tokens()
    _, cache = model.run_with_cache(tokens)
    with pytest.raises(KeyError, match=r"kept only when named: names_filter='blocks.0.attn"):
        cache["result", 0]
    _, cache = model.run_with_cache(tokens, names_filter="*hook_z")
    with pytest.raises(KeyError, match=r"names_filter left it out; kept: \['blocks.0.attn.hook_z'"):
        cache["pattern", 0]
    _, cache = model.run_with_cache(tokens, stop_at_layer=1)
    with pytest.raises(KeyError, match="the run did not reach it"):
        cache["pattern", 1]
    with pytest.raises(KeyError, match=r"nearest: \['blocks.0.attn.hook_pattern'"):
        cache["blocks.0.attn.hook_patern"]


def test_the_cache_is_read_only():
    cache = Cache({"hook_embed": torch.zeros(1)}, n_layers=0)
    with pytest.raises(TypeError):
        cache["hook_embed"] = torch.ones(1)


def test_every_name_that_get_act_name_knows_finds_what_it_names():
    model = tiny(d_mlp=6, act_fn="gelu", normalization_type="LN")
    _, cache = model.run_with_cache(tiny_tokens())
    for key, name in {"k1": "blocks.1.attn.hook_k", "scale1ln1": "blocks.1.ln1.hook_scale",
                      ("key", -1): "blocks.1.attn.hook_k", ("mlp_pre", 1): "blocks.1.mlp.hook_pre",
                      ("scale", None): "ln_final.hook_scale", ("z", "0"): "blocks.0.attn.hook_z",
                      "resid_mid0": "blocks.0.hook_resid_mid"}.items():  # fmt: skip
        assert cache[key] is cache[name] and key in cache


def test_shortformer_positions_are_aside_from_what_sums_to_the_stream():
    """TransformerLens takes every activation with the name hook_pos_embed for a part of it."""
    model = tiny(positional_embedding_type="shortformer")
    _, cache = model.run_with_cache(tiny_tokens())
    _, named = model.run_with_cache(tiny_tokens(), names_filter="hook_pos_embed")
    assert "hook_pos_embed" not in dict(cache) and "pos_embed" in cache
    assert model.hook_names(list(cache)) == [
        name for name in model.hook_dict if not model.hook_dict[name].per_head
    ]
    assert cache["pos_embed"].equal(named["pos_embed"]) and list(named) == ["hook_pos_embed"]
    with pytest.raises(
        AttributeError, match=r"write circuits.io.bridge.activation_cache\(cache, mod"
    ):
        cache.decompose_resid(layer=-1)


def test_removing_the_batch_dim_changes_the_cache_itself_and_wants_a_batch_of_one():
    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens(1))
    cache.remove_batch_dim()
    assert cache["q", 0].shape == (7, 3, 5)
    _, cache = model.run_with_cache(tiny_tokens(1), remove_batch_dim=True)
    assert cache["resid_post", 0].shape == (7, 12)
    with pytest.raises(ValueError, match="batch dim has size 3"):
        model.run_with_cache(tiny_tokens(3), remove_batch_dim=True)


def test_moving_a_cache_converts_all_but_the_tokens():
    _, cache = tiny().run_with_cache(tiny_tokens())
    half = cache.to(torch.float16)
    assert half["q", 0].dtype == torch.float16 and half["tokens"].dtype == torch.int64


def test_the_cache_does_not_keep_its_model_alive_and_forgets_it_when_pickled():
    import gc
    import pickle

    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens())
    assert cache.model is model and cache.to(torch.float32).model is model
    assert pickle.loads(pickle.dumps(cache)).model is None
    del model
    gc.collect()
    assert cache.model is None
