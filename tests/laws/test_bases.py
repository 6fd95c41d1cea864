"""No score of a circuit depends on the basis, and scores follow heads in another order."""

import pytest
import torch

from circuits import algebra, composition, ground_truth
from tests.conftest import tiny, tiny_tokens


def every_score(model):
    """All statements about circuits, as numbers."""
    with torch.no_grad():
        QK, OV = algebra.full_QK(model), algebra.full_OV(model)
        K_comp = algebra.K_composed_QK(model, 1, 0)
        matrices = (QK, OV, K_comp, algebra.positional_QK(model), algebra.direct_path(model))
        numbers = [M.norm().flatten() for M in matrices] + [M.trace().flatten() for M in matrices]
        numbers += [M.eigenvalues.abs().sum(-1).flatten() for M in matrices]
        numbers += [M.svd().S.flatten() for M in matrices]
        return torch.cat([*numbers, composition.scores(model)[:, 0, :, 1].flatten()])


@pytest.fixture
def plain():
    return tiny(normalization_type=None, bias=False).requires_grad_(False)


def test_no_score_depends_on_the_basis_of_the_stream(plain):
    again, tokens = ground_truth.rotated(plain), tiny_tokens()
    assert torch.allclose(plain(tokens), again(tokens))
    assert torch.allclose(every_score(plain), every_score(again), atol=1e-7)


def test_no_score_depends_on_the_basis_inside_a_head(plain):
    """(W_Q M, W_K M^-T) and (W_V M, M^-1 W_O) are the same head."""
    before, M = every_score(plain), torch.randn(5, 5, dtype=torch.float64)
    attn = plain.blocks[1].attn
    attn.W_Q[0], attn.W_K[0] = attn.W_Q[0] @ M, attn.W_K[0] @ torch.linalg.inv(M).T
    attn.W_V[2], attn.W_O[2] = attn.W_V[2] @ M, torch.linalg.inv(M) @ attn.W_O[2]
    assert torch.allclose(every_score(plain), before, atol=1e-7)


def test_heads_in_another_order_have_their_scores_in_that_order(plain):
    before, order = composition.scores(plain), [2, 0, 1]
    norms = algebra.full_OV(plain).norm()
    for name in ("W_Q", "W_K", "W_V", "W_O"):
        weight = getattr(plain.blocks[1].attn, name)
        weight.copy_(weight[order].clone())
    after = composition.scores(plain)
    assert torch.allclose(after[:, 0, :, 1], before[:, 0, :, 1][..., order])
    assert torch.allclose(algebra.full_OV(plain).norm()[1], norms[1, order])
