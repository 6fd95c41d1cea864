import dataclasses

import pytest
import torch

from circuits import GPT, GPTConfig
from circuits.model import ROTARY
from tests.conftest import TINY, tiny_tokens

FULL = {**TINY, "d_mlp": 7, "act_fn": "gelu", "positional_embedding_type": "sinusoidal"}

CHANGES = {
    "n_layers": 3, "d_model": 14, "n_heads": 2, "d_head": 4, "d_vocab": 31, "n_ctx": 9, "d_mlp": 9,
    "act_fn": "relu", "normalization_type": "RMS", "positional_embedding_type": "none",
    "sinusoid_base": 50.0, "sinusoid_scale": 2.0, "bias": False, "smeared_keys": True,
    "attn_scale": 3.0, "eps": 0.1, "init_range": 0.5, "embed_init_range": 2.0, "seed": 1,
    "attention_dir": "bidirectional", "d_vocab_out": 4, "parallel_attn_mlp": True, "rotary_dim": 2,
    "rotary_base": 20.0, "rotary_adjacent_pairs": True, "gated_mlp": True,
}  # fmt: skip


def test_this_table_changes_every_field():
    assert set(CHANGES) == {field.name for field in dataclasses.fields(GPTConfig)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_acts(name):
    """Each field changes a shape, the logits, or which prompts are read."""
    full = {**FULL, "init_range": 0.3}
    if name in ROTARY:
        full |= {"positional_embedding_type": "rotary", "d_head": 6}
    before, after = GPT(GPTConfig(**full)), GPT(GPTConfig(**{**full, name: CHANGES[name]}))

    def shapes(model):
        return {k: tuple(v.shape) for k, v in {**model.state_dict(), "W_pos": _pos(model)}.items()}

    if shapes(before) == shapes(after):
        tokens = tiny_tokens()
        assert not torch.allclose(before(tokens), after(tokens))


def _pos(model):
    return model.W_pos if model.cfg.embeds_positions else torch.empty(0)


def test_json_round_trip_gives_an_equal_config():
    some = {name: value for name, value in CHANGES.items() if name not in ROTARY}
    cfg = GPTConfig(**{**FULL, **some, "positional_embedding_type": "shortformer_sinusoidal"})
    assert GPTConfig.from_json(cfg.to_json()) == cfg
    cfg = GPTConfig(**{**TINY, "positional_embedding_type": "rotary",
                       **{name: CHANGES[name] for name in ROTARY}})  # fmt: skip
    assert GPTConfig.from_json(cfg.to_json()) == cfg and cfg.rotary_dim == 2


@pytest.mark.parametrize(("fields", "message"), [
    ({"rotary_dim": 4}, "rotary_dim=4 would do nothing: .*'standard'"),
    ({"rotary_adjacent_pairs": True}, "rotary_adjacent_pairs=True would do nothing"),
    ({"positional_embedding_type": "rotary"}, "an even number of dims, 2 to d_head=5.* got None"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 6}, "2 to d_head=5.* got 6"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 0}, "2 to d_head=5.* got 0"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 4, "sinusoid_base": 9.0},
     "sinusoid_base=9.0 would do nothing: .*'rotary', which has no sinusoids"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 4, "smeared_keys": True},
     "smeared_keys=True and rotary positions"),
    ({"gated_mlp": True}, "gated_mlp=True would do nothing: .* no MLP"),
    ({"gated_mlp": True, "d_mlp": 7, "act_fn": "solu_ln"}, "gated_mlp=True and act_fn='solu_ln'"),
    ({"parallel_attn_mlp": True}, "parallel_attn_mlp=True would do nothing: .* no MLP"),
])  # fmt: skip
def test_fields_that_would_do_nothing_or_do_not_go_together_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{**TINY, **fields})


def test_the_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        GPTConfig(**TINY).n_layers = 3
