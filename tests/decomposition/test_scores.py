"""Terms of scores sum to the scores, by paths and by tokens."""

import math

import pytest
import torch

from circuits import algebra, ground_truth, paths, scores
from tests.conftest import ROTARY, tiny, tiny_tokens
from tests.decomposition.conftest import missing


@pytest.mark.parametrize("by", ["order", "layers", "path"])
def test_score_terms_sum_to_the_scores(exact_run, by):
    model, cache, _, exact = exact_run
    for layer in range(min(model.cfg.n_layers, 2) if by == "path" else model.cfg.n_layers):
        for head in range(model.cfg.n_heads):
            parts = scores.groups(model, cache, (layer, head), by)
            assert missing(parts) < exact
            true = cache["attn_scores", layer][:, head]
            shown = parts.whole.masked_fill(true.isinf(), -math.inf)
            size = true[true.isfinite()].abs().max().clamp(min=1.0)
            assert torch.allclose(shown, true, atol=float(exact * size))


def test_a_hook_on_the_scores_shows_in_the_remainder():
    """The whole is the head's score in the run, and not the sum of the paths."""
    model = tiny()
    halve = [("blocks.1.attn.hook_attn_scores", lambda scores, hook: scores / 2)]
    with model.hooks(halve):
        _, cache = model.run_with_cache(tiny_tokens())
    parts = scores.groups(model, cache, "L1H1")
    assert torch.allclose(parts.whole, parts.total / 2)


def test_layer_1_has_the_four_groups_of_the_paper():
    """C_QK = Id Id (W_E^T W_QK W_E) + A^hq Id (...) + Id A^hk (...) + A^hq A^hk (...)."""
    model = tiny(normalization_type=None, bias=False, positional_embedding_type="none")
    tokens = tiny_tokens()
    _, cache = model.run_with_cache(tokens)
    groups = scores.groups(model, cache, "L1H2")
    assert list(groups) == [f"order {i} x order {j}" for i in (0, 1) for j in (0, 1)]
    A = cache["pattern", 0]

    def circuit(query=(), key=()):
        return algebra.composed_QK(model, (1, 2), query=query, key=key).AB[
            tokens[:, :, None], tokens[:, None, :]
        ]

    heads = [(0, h) for h in range(3)]
    assert torch.allclose(groups["order 0 x order 0"], circuit().tril())
    on_query = sum(A[:, h] @ circuit(query=[(0, h)]) for _, h in heads)
    assert torch.allclose(groups["order 1 x order 0"], on_query.tril())
    on_key = sum(circuit(key=[(0, h)]) @ A[:, h].mT for _, h in heads)
    assert torch.allclose(groups["order 0 x order 1"], on_key.tril())
    both = sum(
        A[:, g] @ circuit([(0, g)], [(0, h)]) @ A[:, h].mT for _, g in heads for _, h in heads
    )
    assert torch.allclose(groups["order 1 x order 1"], both.tril())
    query, key = (paths.path(model, text) for text in ("embed > L0H1 > L1H2.Q", "embed > L1H2.K"))
    assert torch.allclose(scores.term(model, cache, query, key),
                          (A[:, 1] @ circuit([(0, 1)])).tril())  # fmt: skip


def test_scores_by_token_sum_to_the_score_and_come_from_no_later_token(exact_run):
    model, cache, _, exact = exact_run
    for layer in range(model.cfg.n_layers):
        for what in "QKV":
            read = scores.read_by_token(model, cache, f"L{layer}H1.{what}", 4)
            true = cache[what.lower(), layer][:, 4, 1]
            assert torch.allclose(read.sum(1), true, atol=float(exact * true.abs().max() * 10))
            assert read[:, 5:].eq(0).all()
        split = scores.by_token(model, cache, (layer, 1), dest=5, src=3)
        true = cache["attn_scores", layer][:, 1, 5, 3]
        size = split.abs().max().clamp(min=1.0)
        assert torch.allclose(split.sum((1, 2)), true, atol=float(10 * exact * size))
        assert split[:, 6:].eq(0).all() and split[:, :, 4:].eq(0).all()


def test_an_induction_head_seeks_the_token_before_the_one_it_attends_to():
    """F21 on a known circuit: the key's part is the previous token's, through L0H0."""
    model = ground_truth.Induction().model
    tokens = torch.tensor([[0, 5, 9, 3, 5]])
    _, cache = model.run_with_cache(tokens)
    assert cache["pattern", 1][0, 0, 4, 2] > 0.999  # from the second 5 to the 9 after the first
    split = scores.by_token(model, cache, "L1H0", dest=4, src=2)[0]
    assert split[4, 1] == pytest.approx(100.0) and split.sum() == pytest.approx(100.0)
    groups = scores.groups(model, cache, "L1H0")
    assert groups["order 0 x order 1"][0, 4, 2] == pytest.approx(100.0)
    assert groups["order 0 x order 0"][0, 4, 2] == 0


def test_an_unsmeared_and_a_smeared_key_are_read_where_they_come_from():
    model = tiny(smeared_keys=True, normalization_type=None, n_layers=1, bias=False,
                 positional_embedding_type="none")  # fmt: skip
    _, cache = model.run_with_cache(tiny_tokens())
    read = scores.read_by_token(model, cache, "L0H0.K", 4)
    share = model.blocks[0].attn.alpha[0].sigmoid()
    k = cache["embed"] @ model.W_K[0, 0]
    assert torch.allclose(read[:, 4], share * k[:, 4])
    assert torch.allclose(read[:, 3], (1 - share) * k[:, 3])
    assert read[:, :3].eq(0).all()


@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_scores_of_a_padded_rotary_row_are_sums_as_those_of_the_row_alone(side):
    model, tokens, pads = tiny(**ROTARY[0]), tiny_tokens(pos=5), torch.zeros(3, 2).long()
    parts = (pads, tokens) if side == "left" else (tokens, pads)
    mask = torch.cat([torch.full_like(one, one is tokens) for one in parts], 1)
    _, padded = model.run_with_cache(torch.cat(parts, 1), attention_mask=mask)
    _, alone = model.run_with_cache(tokens)
    found, wanted = (scores.groups(model, cache, "L1H2") for cache in (padded, alone))
    own = slice(2, None) if side == "left" else slice(5)
    assert found.remainder[..., own, own].abs().max() < 1e-10
    assert torch.allclose(found.stack[..., own, own], wanted.stack)
