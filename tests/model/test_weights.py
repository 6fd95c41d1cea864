"""The weights of a GPT: their names, their first values, and their stacks."""

import pytest
import torch

from circuits import GPT, GPTConfig
from circuits.io import load_weights
from tests.conftest import TINY, tiny, tiny_tokens


def test_a_hooked_transformer_state_dict_loads_strictly():
    """Its names and shapes are ours; its mask buffers are passed over."""
    model = tiny(d_mlp=6, act_fn="gelu")
    weights = {name: torch.randn_like(w) for name, w in model.state_dict().items()}
    buffers = {"blocks.0.attn.mask": torch.ones(16, 16), "blocks.0.attn.IGNORE": torch.tensor(-1e5)}
    load_weights(model, {**weights, **buffers})
    assert all(model.state_dict()[name].equal(weights[name]) for name in weights)
    shapes = {name: list(weight.shape) for name, weight in weights.items()}
    assert shapes["blocks.0.attn.W_Q"] == [3, 12, 5] and shapes["blocks.0.attn.W_O"] == [3, 5, 12]
    assert shapes["blocks.0.mlp.W_in"] == [12, 6] and shapes["unembed.W_U"] == [12, 29]


def test_parameters_are_leaves_that_can_be_edited_and_differentiated():
    model, tokens = tiny(), tiny_tokens()
    assert all(parameter.is_leaf for parameter in model.parameters())
    model(tokens, return_type="loss").backward()
    assert all(parameter.grad.ne(0).any() for name, parameter in model.named_parameters()
               if not name.endswith("b_K"))  # fmt: skip
    with torch.no_grad():
        before = model(tokens)
        model.blocks[0].attn.W_V[1] = 0
        assert not torch.allclose(model(tokens), before)
        assert model.W_V[0, 1].eq(0).all()


def test_seeded_initialisation_is_the_same_and_of_the_right_size():
    a, b = (GPT(GPTConfig(**{**TINY, "d_model": 200, "init_range": 0.3})) for _ in range(2))
    assert all(p.equal(q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert a.W_E.std().item() == pytest.approx(0.3, rel=0.05)
    assert a.blocks[0].attn.b_Q.eq(0).all() and a.ln_final.w.eq(1).all()


def test_an_init_of_its_own_changes_the_embedding_alone():
    usual = GPT(GPTConfig(**TINY))
    louder = GPT(GPTConfig(**TINY, embed_init_range=0.2)).state_dict()
    for name, weight in usual.state_dict().items():
        assert torch.allclose(louder[name], weight * (10 if name == "embed.W_E" else 1)), name
