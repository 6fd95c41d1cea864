import pytest
import torch

from circuits.cache import Cache, act_name
from tests.conftest import tiny, tiny_tokens


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (("pattern", 3), "blocks.3.attn.hook_pattern"),
        (("attn", 3), "blocks.3.attn.hook_pattern"),
        (("z", 0), "blocks.0.attn.hook_z"),
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
    if key != ("scale",):
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
    with pytest.raises(KeyError, match="the run did not come past it"):
        cache["pattern", 1]
    with pytest.raises(KeyError, match=r"nearest: \['blocks.0.attn.hook_pattern'"):
        cache["blocks.0.attn.hook_patern"]


def test_the_cache_is_read_only():
    cache = Cache({"hook_embed": torch.zeros(1)}, n_layers=0)
    with pytest.raises(TypeError):
        cache["hook_embed"] = torch.ones(1)


def test_removing_the_batch_dim_wants_a_batch_of_one():
    model = tiny()
    _, cache = model.run_with_cache(tiny_tokens(1), remove_batch_dim=True)
    assert cache["resid_post", 0].shape == (7, 12)
    with pytest.raises(ValueError, match="batch dim has size 3"):
        model.run_with_cache(tiny_tokens(3), remove_batch_dim=True)


def test_moving_a_cache_converts_all_but_the_tokens():
    _, cache = tiny().run_with_cache(tiny_tokens())
    half = cache.to(torch.float16)
    assert half["q", 0].dtype == torch.float16 and half["tokens"].dtype == torch.int64
