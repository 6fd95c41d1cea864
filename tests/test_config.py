import dataclasses

import pytest
import torch

from circuits import GPT, GPTConfig
from tests.conftest import TINY, tiny_tokens

FULL = {**TINY, "d_mlp": 7, "act_fn": "gelu", "positional_embedding_type": "sinusoidal"}

CHANGES = {
    "n_layers": 3, "d_model": 14, "n_heads": 2, "d_head": 4, "d_vocab": 31, "n_ctx": 9, "d_mlp": 9,
    "act_fn": "relu", "normalization_type": "RMS", "positional_embedding_type": "none",
    "sinusoid_base": 50.0, "sinusoid_scale": 2.0, "bias": False, "smeared_keys": True,
    "attn_scale": 3.0, "eps": 0.1, "init_range": 0.5, "seed": 1,
}  # fmt: skip


def test_this_table_changes_every_field():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(GPTConfig)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_acts(name):
    """Each field changes a shape, the logits, or which prompts are read."""
    before = GPT(GPTConfig(**{**FULL, "init_range": 0.3}))
    after = GPT(GPTConfig(**{**FULL, "init_range": 0.3, name: CHANGES[name]}))

    def shapes(model):
        return {k: tuple(v.shape) for k, v in {**model.state_dict(), "W_pos": _pos(model)}.items()}

    if shapes(before) == shapes(after):
        tokens = tiny_tokens()
        assert not torch.allclose(before(tokens), after(tokens))


def _pos(model):
    return model.W_pos if model.cfg.positional_embedding_type != "none" else torch.empty(0)


def test_json_round_trip_gives_an_equal_config():
    cfg = GPTConfig(**{**FULL, **CHANGES, "positional_embedding_type": "shortformer_sinusoidal"})
    assert GPTConfig.from_json(cfg.to_json()) == cfg


def test_the_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig(**TINY).n_layers = 3


def test_a_misspelled_field_is_named_with_its_nearest_neighbour():
    with pytest.raises(TypeError, match=r"no field 'n_layer'; did you mean 'n_layers'\?"):
        GPTConfig(**TINY, n_layer=2)


def test_fields_of_transformer_lens_that_we_lack_say_what_to_do_instead():
    with pytest.raises(TypeError, match="no field 'attn_only'; leave d_mlp out"):
        GPTConfig(**TINY, attn_only=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_layers": -1}, "n_layers must be a whole number >= 0, got -1"),
        ({"d_model": 0}, "d_model must be a whole number >= 1, got 0"),
        ({"d_head": 2.5}, "d_head must be a whole number >= 1, got 2.5"),
        ({"n_ctx": True}, "n_ctx must be a whole number"),
        ({"d_mlp": 0, "act_fn": "relu"}, "d_mlp must be a whole number >= 1"),
        ({"d_mlp": 5}, "act_fn=None is not supported"),
        ({"act_fn": "relu"}, "act_fn='relu' would do nothing: d_mlp is None"),
        ({"d_mlp": 5, "act_fn": "solu_ln"}, "act_fn='solu_ln' is not supported; choose"),
        ({"normalization_type": "BN"}, "normalization_type='BN' is not supported; choose"),
        ({"positional_embedding_type": "rotary"}, "'rotary' is not supported; choose"),
        ({"sinusoid_base": 9.0}, "sinusoid_base=9.0 would do nothing"),
        ({"bias": "yes"}, "bias must be True or False, got 'yes'"),
        ({"attn_scale": 0.0}, "attn_scale must be a number > 0, got 0.0"),
        ({"eps": float("nan")}, "eps must be a number > 0, got nan"),
    ],
)
def test_what_cannot_be_built_is_refused_in_words(fields, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**TINY, **fields})
