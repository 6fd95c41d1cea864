"""Composition of every pair is that of the dense products, and chance what random matrices give."""

import pytest
import torch

from circuits import algebra, composition
from circuits.model import components
from tests.conftest import tiny


def dense_scores(model):
    """Composition by its definition, from dense products of every pair."""
    OV, QK, n = algebra.OV(model).AB, algebra.QK(model).AB, model.cfg.n_layers
    every = components.every_head(model.cfg)
    scores = torch.full((3, n, 3, n, 3), torch.nan, dtype=torch.float64)
    for via, M in enumerate((QK, QK.mT, OV)):
        for a in every:
            for b in (head for head in every if head.layer > a.layer):
                size = OV[a].norm() * M[b].norm()
                scores[(via, *a, *b)] = (OV[a] @ M[b]).norm() / size
    return scores


@pytest.mark.parametrize("norm", [None, "LN", "RMS"])
@pytest.mark.parametrize("strip", [96, 5, 1])
def test_composition_of_every_pair_is_that_of_the_dense_products(norm, strip, monkeypatch):
    """The number of rows of a strip does not change the scores."""
    monkeypatch.setattr(composition, "STRIP", strip)
    model = tiny(n_layers=4, normalization_type=norm, n_heads=3).requires_grad_(False)
    scores = composition.scores(model)
    assert torch.allclose(scores, dense_scores(model), equal_nan=True, atol=1e-10)
    assert ((scores >= 0) & (scores <= 1) | scores.isnan()).all()


@pytest.mark.parametrize("size", [1e-5, 1e5])
def test_composition_does_not_depend_on_the_size_of_heads(size):
    """Also where squares of the weights would under- or overflow in float32."""
    model = tiny(normalization_type=None).float().requires_grad_(False)
    before = composition.scores(model)
    for block in model.blocks:
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            getattr(block.attn, name).mul_(size)
    assert torch.allclose(composition.scores(model), before, equal_nan=True, atol=1e-5)


def test_composition_of_a_half_precision_model_is_that_of_its_weights():
    model = tiny(normalization_type=None).half().requires_grad_(False)
    half = composition.scores(model)
    assert half.dtype == torch.float32
    assert torch.allclose(half, composition.scores(model.float()), equal_nan=True, atol=1e-4)


def test_composition_can_be_differentiated():
    model = tiny()
    composition.scores(model)[0, 0, 0, 1, 0].backward()
    grad = model.blocks[1].attn.W_Q.grad
    assert grad is not None and grad.isfinite().all() and grad[0].ne(0).any()
    assert grad[1:].eq(0).all()


def test_composition_agrees_with_transformer_lens():
    """The FactoredMatrix and the definition of TransformerLens, without norms."""
    lens = pytest.importorskip("transformer_lens")
    model = tiny(normalization_type=None).requires_grad_(False)
    scores = composition.scores(model)
    OV = lens.FactoredMatrix(model.W_V, model.W_O)
    QK = lens.FactoredMatrix(model.W_Q, model.W_K.mT)
    for via, M in enumerate((QK, QK.T, OV)):
        for writer in range(3):
            for reader in range(3):
                A, B = OV[0, writer], M[1, reader]
                expected = (A @ B).norm() / (A.norm() * B.norm())
                assert torch.isclose(scores[via, 0, writer, 1, reader], expected)


def random_scores(d_model: int, d_head: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(2, n, d_model, d_head, generator=generator, dtype=torch.float64)
    A, M = left @ torch.randn(2, n, d_head, d_model, generator=generator, dtype=torch.float64)
    size = torch.linalg.matrix_norm
    return size(A @ M) / (size(A) * size(M))


def test_chance_is_what_random_matrices_give_and_does_not_depend_on_the_head_size():
    """papers.md 1.2: .1246, .0887, .0625, .0360 were measured for 64, 128, 256, 768."""
    for d_model, d_head, measured in ((64, 8, 0.1246), (64, 32, 0.1246), (128, 16, 0.0887)):
        cfg = tiny(d_model=d_model, d_head=d_head).cfg
        sample = random_scores(d_model, d_head, 60)
        squared = sample.pow(2)
        error = squared.std() / len(sample) ** 0.5
        assert abs(squared.mean() - composition.chance(cfg) ** 2) < 4 * error
        assert sample.mean() == pytest.approx(measured, rel=0.02)


def test_a_rotated_product_has_the_same_trace_and_another_norm():
    """papers.md 1.5, the mistake of the published diagram."""
    model = tiny(normalization_type=None).requires_grad_(False)
    rotated, true = composition.rotated_scores(model), composition.scores(model)
    V, W_O, Q, K = model.W_V[0, 1], model.W_O[0, 1], model.W_Q[1, 2], model.W_K[1, 2]
    size = (V @ W_O).norm() * (Q @ K.T).norm()
    for via, product in enumerate(((K.T @ V, W_O @ Q), (Q.T @ V, W_O @ K))):
        small = product[0] @ product[1]
        assert torch.isclose(rotated[via, 0, 1, 1, 2], small.norm() / size)
    full = V @ W_O @ K @ Q.T
    assert torch.isclose(full.trace(), (Q.T @ V @ W_O @ K).trace())
    assert not torch.allclose(rotated[:, 0, :, 1], true[:, 0, :, 1], rtol=0.05)
    assert rotated.isnan().equal(true.isnan())


def test_zero_heads_compose_with_nothing():
    model = tiny().requires_grad_(False)
    model.blocks[0].attn.W_V[1] = 0
    assert composition.scores(model)[:, 0, 1, 1].eq(0).all()
    assert composition.scores(tiny(n_layers=1)).isnan().all()
