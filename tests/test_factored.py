"""A FactoredMatrix agrees with the dense product in everything it computes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import FactoredMatrix


def factored(lead=(2, 3), rows=7, inner=4, columns=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(*lead, rows, inner, generator=generator, dtype=torch.float64)
    return FactoredMatrix(
        A, torch.randn(*lead, inner, columns, generator=generator, dtype=torch.float64)
    )


@settings(max_examples=30, deadline=None)
@given(
    lead=st.sampled_from([(), (2,), (2, 3)]),
    rows=st.integers(1, 8),
    inner=st.integers(1, 8),
    columns=st.integers(1, 8),
)
def test_norm_and_transpose_are_those_of_the_dense_product(lead, rows, inner, columns):
    M = factored(lead, rows, inner, columns)
    assert M.shape == M.AB.shape and M.ndim == M.AB.ndim
    assert torch.allclose(M.norm, torch.linalg.matrix_norm(M.AB))
    assert torch.allclose(M.T.AB, M.AB.mT)


def test_trace_diagonal_and_eigenvalues_are_those_of_the_dense_product():
    M = factored()
    dense = M.AB
    assert torch.allclose(M.trace, dense.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert torch.allclose(M.diagonal, dense.diagonal(dim1=-2, dim2=-1))
    for ours, theirs in zip(M.eigenvalues.flatten(0, 1), torch.linalg.eigvals(dense).flatten(0, 1),
                            strict=True):  # fmt: skip
        largest = theirs[theirs.abs().argsort(descending=True)[:4]]
        gaps = (ours[:, None] - largest[None]).abs()
        assert gaps.amin(0).max() < 1e-10 and gaps.amin(1).max() < 1e-10
    assert torch.allclose(M.eigenvalues.sum(-1).real, M.trace)


def test_the_norm_is_not_that_of_a_cyclic_rotation():
    """The bug behind the published composition diagram: traces may be rotated, norms may not."""
    M = factored(())
    assert not torch.allclose(M.norm, torch.linalg.matrix_norm(M.B @ M.A))


@pytest.mark.parametrize("inner", [2, 6])
def test_products_stay_factored_at_the_smaller_inner_size(inner):
    M, N = factored(inner=4), factored(inner=inner, seed=1)
    product = M @ N
    assert torch.allclose(product.AB, M.AB @ N.AB)
    assert product.A.shape[-1] == min(4, inner)
    X = torch.randn(7, 3, dtype=torch.float64)
    assert torch.allclose((M @ X).AB, M.AB @ X)
    assert torch.allclose((X.T @ M).AB, X.T @ M.AB)


def test_indexing_takes_layers_and_heads():
    M = factored()
    for index in (1, (0, 2), (slice(None), 1), (..., 1), torch.tensor([1, 0])):
        assert torch.allclose(M[index].AB, M.AB[index] if not isinstance(index, tuple) or
                              index[0] is not ... else M.AB[:, 1])  # fmt: skip


def test_leading_dims_broadcast():
    A, B = torch.randn(2, 1, 5, 3), torch.randn(4, 3, 6)
    assert FactoredMatrix(A, B).shape == (2, 4, 5, 6)
    assert torch.allclose(FactoredMatrix(A, B).AB, A @ B)
