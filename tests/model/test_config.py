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
    "attn_scale": 3.0, "eps": 0.1, "init_range": 0.5, "embed_init_range": 2.0, "seed": 1,
    "attention_dir": "bidirectional", "d_vocab_out": 4,
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
