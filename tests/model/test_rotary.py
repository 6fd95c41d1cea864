import pytest
import torch

from circuits import GPT
from circuits.model import KeyValueCache, Rotary
from tests.conftest import ROTARY, TINY, tiny, tiny_tokens, variant_name

KINDS = pytest.mark.parametrize("fields", ROTARY, ids=variant_name)
TOKENS = tiny_tokens()


def close(a, b, atol=1e-12):
    return torch.allclose(a, b, rtol=0, atol=atol)


@KINDS
def test_turns_add_up_and_keep_the_dims_that_are_not_turned(fields):
    rotary = tiny(**fields).rotary
    R = rotary.matrix(torch.arange(16))
    assert close(R[7] @ R[4].T, R[3]) and close(R @ R.mT, torch.eye(len(R[0])).double())
    assert R[0].equal(torch.eye(len(R[0])).double()) and not close(R[1], R[0], atol=0.1)
    assert R[:, rotary.dim :].equal(R[:1, rotary.dim :].expand(16, -1, -1))
    assert close(rotary.mean_matrix(), R.mean(0))
    x = torch.randn(2, 16, 3, rotary.d_head, dtype=torch.float64)
    assert close(rotary(x), torch.einsum("bphe,pef->bphf", x, R))
    assert close(rotary(x[:, :2], slice(5, 7)), rotary(torch.cat([x[:, :5], x[:, :2]], 1))[:, 5:])


@KINDS
def test_patterns_do_not_change_when_all_positions_move(fields):
    model = tiny(**{**fields, "n_ctx": 1100})
    attn, resid = model.blocks[0].attn, torch.randn(2, 20, 12, dtype=torch.float64)
    assert close(attn(*[resid] * 3), attn(*[resid] * 3, rows=slice(1000, 1020)), atol=1e-10)
    moved = torch.arange(20).flip(0).expand(2, -1)  # but they do when positions change their order
    assert not close(attn(*[resid] * 3), attn(*[resid] * 3, rows=moved), atol=1e-3)


@KINDS
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_has_the_logits_it_has_alone(fields, side):
    model, n = tiny(**fields), 4
    pads = torch.zeros(3, 3, dtype=torch.long)
    parts = (pads, TOKENS[:, :n]) if side == "left" else (TOKENS[:, :n], pads)
    mask = torch.cat([torch.full_like(one, one is not pads) for one in parts], 1)
    own = slice(3, None) if side == "left" else slice(n)
    padded = model(torch.cat(parts, 1), attention_mask=mask)[:, own]
    assert close(padded, model(TOKENS[:, :n]))


def test_without_turning_the_model_is_one_without_positions():
    model = tiny(positional_embedding_type="rotary", d_head=6, d_mlp=7, act_fn="gelu")
    plain = GPT(tiny(positional_embedding_type="none", d_head=6, d_mlp=7, act_fn="gelu").cfg)
    plain.double().load_state_dict(model.state_dict())
    assert not close(model(TOKENS), plain(TOKENS), atol=1e-3)
    model.rotary.cos.fill_(1)
    model.rotary.sin.zero_()
    assert close(model(TOKENS), plain(TOKENS))


@torch.no_grad()
def test_adjacent_and_split_pairs_are_one_model_with_dims_in_another_order():
    fields = {**TINY, "positional_embedding_type": "rotary", "d_head": 6, "rotary_dim": 4}
    split, adjacent = tiny(**fields), tiny(**fields, rotary_adjacent_pairs=True)
    assert not close(split(TOKENS), adjacent(TOKENS), atol=1e-3)
    order = [0, 2, 1, 3, 4, 5]  # a plane's two dims side by side
    for ours, theirs in zip(adjacent.blocks, split.blocks, strict=True):
        for name in ("W_Q", "W_K", "b_Q", "b_K"):
            getattr(ours.attn, name).copy_(getattr(theirs.attn, name)[..., order])
    assert close(split(TOKENS), adjacent(TOKENS))


def test_angles_are_exact_in_float64_and_those_of_the_trained_model_below():
    model = tiny(dtype=torch.float32, **{**ROTARY[0], "n_ctx": 3000})
    rotary = model.rotary
    w = 1.0 / 50 ** (torch.arange(0, 4, 2) / 4)
    assert rotary.cos.equal(torch.outer(torch.arange(3000).float(), w).cos())
    exact = torch.outer(torch.arange(3000).double(), 50.0 ** -(torch.arange(0, 4, 2).double() / 4))
    assert 1e-6 < (rotary.cos - exact.cos()).abs().max() < 1e-3
    assert close(model.double().rotary.cos, exact.cos())
    assert model.blocks[0].attn.rotary is model.blocks[1].attn.rotary is model.rotary
    assert model.bfloat16().rotary.cos.equal(Rotary(model.cfg).cos.bfloat16())
    assert "rotary" not in str(list(model.state_dict()))


@KINDS
def test_each_piece_of_a_run_continues_at_its_own_position(fields):
    model = tiny(**fields)
    past = KeyValueCache.init_cache(model.cfg, 3)
    pieces = [model(TOKENS[:, at], past_kv_cache=past) for at in (slice(2), slice(2, 3),
                                                                  slice(3, 7))]  # fmt: skip
    assert close(torch.cat(pieces, 1), model(TOKENS))
    greedy = model.generate(TOKENS, 5, temperature=0.0)
    assert greedy.equal(model.generate(TOKENS, 5, temperature=0.0, use_past_kv_cache=False))
