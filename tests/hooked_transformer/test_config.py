"""A config reads as TransformerLens fills it in, and refuses what cannot be expressed."""

import copy
import math

import pytest
import torch

from circuits.hooked_transformer import HookedTransformer, HookedTransformerConfig
from tests.conftest import TINY
from tests.hooked_transformer.models import SHAPE, TOKENS, biased, speaking

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_config_reads_as_transformer_lens_fills_it_in():
    cfg = HookedTransformerConfig(**{**TINY, "n_heads": -1}, d_mlp=None, act_fn="gelu", seed=None)
    assert (cfg.n_heads, cfg.d_mlp, cfg.attn_only) == (2, 48, False)
    assert cfg.initializer_range == pytest.approx(0.8 / math.sqrt(12))
    assert cfg.attn_scale == pytest.approx(math.sqrt(5)) and cfg.d_vocab_out == 29
    assert (cfg.device, cfg.dtype, cfg.model_name, cfg.seed) == ("cpu", torch.float32, "custom",
                                                                 None)  # fmt: skip
    assert not cfg.use_attn_result and cfg.default_prepend_bos and cfg.tokenizer_name is None
    assert cfg.n_params == 2 * (4 * 12 * 5 * 2 + 2 * 12 * 48)
    again = HookedTransformerConfig.from_dict(cfg.to_dict())
    assert again == cfg and again.to_dict() == cfg.to_dict() and copy.deepcopy(cfg) == cfg
    with pytest.raises(AttributeError, match="no field 'n_layer'"):
        _ = cfg.n_layer


def test_a_config_can_be_set_until_a_model_is_made_of_it():
    cfg = HookedTransformerConfig(**SHAPE)
    cfg.d_model, cfg.use_attn_result = 20, True
    model = HookedTransformer(cfg)
    assert model.W_E.shape == (29, 20) and model.cfg.use_attn_result
    assert model.cfg.initializer_range == pytest.approx(0.8 / math.sqrt(20))
    with pytest.raises(AttributeError, match=r"d_model cannot be set, the model is made"):
        model.cfg.d_model = 3
    with pytest.raises(ValueError, match=r"n_layer=3 is no field of .* did you mean 'n_layers'"):
        cfg.n_layer = 3
    assert HookedTransformer(model.cfg).W_E.equal(model.W_E)


@pytest.mark.parametrize(("fields", "message"), [
    ({"init_mode": "xavier_uniform"}, "init_mode='xavier_uniform' cannot be expressed"),
    ({"n_devices": 2}, "n_devices=2 cannot be expressed: a model lies on one device"),
    ({"use_attn_in": True}, "there is no hook_attn_in"), ({"gated_mlp": True}, "gated_mlp=True"),
    ({"positional_embedding_type": "alibi"}, "positional_embedding_type='alibi'"),
    ({"d_vocab": -1}, r"d_vocab must be a whole .* write d_vocab=len\(tokenizer\)"),
    ({"n_layer": 1}, "did you mean")])  # fmt: skip
def test_what_cannot_be_expressed_is_refused_by_field(fields, message):
    with pytest.raises(ValueError, match=message):
        HookedTransformer({**SHAPE, **fields})


def test_flags_act_that_are_set_in_the_config_of_a_model():
    model = biased()
    for flag, names in {
        "use_attn_result": ["result"],
        "use_hook_mlp_in": ["mlp_in"],
        "use_split_qkv_input": ["q_input", "k_input", "v_input"],
    }.items():
        for on in (True, False):
            setattr(model.cfg, flag, on)
            _, cache = model.run_with_cache(TOKENS)
            assert all(((name, 1) in cache) is on for name in names), flag
    _, cache = model.run_with_cache(TOKENS)
    assert all(value.mean() is not None for value in cache.values())  # no tokens among them
    model.cfg.use_hook_tokens = True
    assert model.run_with_cache(TOKENS)[1]["tokens"].equal(TOKENS)
    with pytest.raises(ValueError, match="there is no hook_attn_in"):
        model.cfg.use_attn_in = True
    model = speaking()
    n = model.to_tokens("cat").shape[1]
    model.cfg.default_prepend_bos = False
    assert model.to_tokens("cat").shape[1] == n - 1


def test_toy_models_of_other_tasks_are_built_from_their_config():
    fields = {**TINY, "act_fn": "solu_ln", "attention_dir": "bidirectional", "d_vocab_out": 5}
    model = HookedTransformer({**fields, "seed": 0, "initializer_range": 0.4})
    assert model(TOKENS).shape == (3, 7, 5) and model.b_U.shape == (5,)
    assert model.cfg.d_vocab_out == 5 and model.cfg.attention_dir == "bidirectional"
    assert HookedTransformerConfig.from_dict(model.cfg.to_dict()) == model.cfg
    _, cache = model.run_with_cache(TOKENS)
    assert (cache["pattern", 0] > 0).all() and model.cfg.is_layer_norm_activation()
