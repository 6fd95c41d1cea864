"""A FactoredMatrix agrees with the dense product in everything it computes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import FactoredMatrix, hooked_transformer


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
    assert torch.allclose(M.norm(), torch.linalg.matrix_norm(M.AB))
    assert torch.allclose(M.T.AB, M.AB.mT)


def test_trace_diagonal_and_eigenvalues_are_those_of_the_dense_product():
    M = factored()
    dense = M.AB
    assert torch.allclose(M.trace(), dense.diagonal(dim1=-2, dim2=-1).sum(-1))
    assert torch.allclose(M.diagonal(), dense.diagonal(dim1=-2, dim2=-1))
    for ours, theirs in zip(M.eigenvalues.flatten(0, 1), torch.linalg.eigvals(dense).flatten(0, 1),
                            strict=True):  # fmt: skip
        largest = theirs[theirs.abs().argsort(descending=True)[:4]]
        gaps = (ours[:, None] - largest[None]).abs()
        assert gaps.amin(0).max() < 1e-10 and gaps.amin(1).max() < 1e-10
    assert torch.allclose(M.eigenvalues.sum(-1).real, M.trace())


def test_the_norm_is_not_that_of_a_cyclic_rotation():
    """The bug behind the published composition diagram: traces may be rotated, norms may not."""
    M = factored(())
    assert not torch.allclose(M.norm(), torch.linalg.matrix_norm(M.B @ M.A))


@pytest.mark.parametrize("inner", [2, 6])
def test_products_stay_factored_at_the_smaller_inner_size(inner):
    M, N = factored(inner=4), factored(inner=inner, seed=1)
    product = M @ N
    assert torch.allclose(product.AB, M.AB @ N.AB)
    assert product.A.shape[-1] == min(4, inner)
    X = torch.randn(7, 3, dtype=torch.float64)
    assert torch.allclose((M @ X).AB, M.AB @ X)
    assert torch.allclose((X.T @ M).AB, X.T @ M.AB)


SAME = [
    1, (0, 2), (slice(None), 1), torch.tensor([1, 0]), None, (0, None, 1), (1, ..., slice(2, 5)),
    (0, 1, torch.tensor([4, 2])), (0, 1, slice(None), [0, 6]), torch.tensor([True, False]), ...,
]  # fmt: skip
KEPT = [
    ((..., 3), (..., slice(3, 4))),
    ((..., -1, slice(None)), (..., slice(-1, None), slice(None))),
    ((slice(None), slice(1, 3), -2, 0), (slice(None), slice(1, 3), slice(-2, -1), slice(0, 1))),
]


@pytest.mark.parametrize(("index", "dense"), [*zip(SAME, SAME, strict=True), *KEPT], ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_indexing_is_that_of_a_tensor_where_a_single_row_or_column_stays(index, dense, shared):
    """Also where the outer factors are shared by all layers and heads; these are not copied."""
    E = torch.randn(9, 7, dtype=torch.float64)
    M = FactoredMatrix(E, *factored().factors, E.T) if shared else factored()
    assert torch.allclose(M[index].AB, M.AB[dense])
    if shared and index == (0, 2):
        assert M[index].factors[0].data_ptr() == E.data_ptr()


def test_a_single_product_can_be_given_a_leading_dim():
    M = FactoredMatrix(torch.ones(4, 2), torch.ones(2, 3))
    assert M[None].shape == (1, 4, 3) and torch.equal(M[None].AB, M.AB[None])


def test_a_row_or_column_is_any_whole_number_that_is_there():
    M = factored(rows=5, columns=6)
    for one in (torch.tensor(1), np.int64(1), 1, -4):
        assert torch.allclose(M[..., one, :].AB, M.AB[..., 1:2, :])
    for missing in (5, -6):
        with pytest.raises(IndexError, match=f"there is no index {missing} among 5 rows or col"):
            M[..., missing, :]
    one = M[0, 0]
    assert len(list(one)) == 5  # it ends, as a tensor's rows do
    best = one.top(1)
    assert one[best.rows[0], best.columns[0]].AB.item() == best.values.item()
    paired = M[0, 0, [1, 2], [3, 4]]
    assert torch.allclose(paired.AB, M.AB[0, 0, 1:3, 3:5])  # each on its own, as numpy's ix_


def test_half_precision_is_taken_to_single_where_it_would_overflow():
    M = FactoredMatrix(torch.full((300, 2), 40.0).half(), torch.full((2, 300), 40.0).half())
    expected = torch.tensor(2 * 40.0 * 40.0 * 300)
    assert torch.isclose(M.norm(), expected) and M.norm().dtype == torch.float32
    assert torch.isclose(M.svd().S[0], expected) and M.eigenvalues.abs().max() > 0


def test_rows_and_columns_are_those_of_the_dense_product():
    M = factored()
    assert torch.allclose(M.rows([5, 0]), M.AB[..., [5, 0], :])
    assert torch.allclose(M.columns(slice(2, 4)), M.AB[..., 2:4])


def test_svd_gives_orthonormal_bases_and_the_rows_of_vt():
    for columns in (7, 5, 3):
        M = factored(columns=columns)
        U, S, Vt = M.svd()
        inner = min(4, columns)
        assert torch.allclose(U * S[..., None, :] @ Vt, M.AB)
        eye = torch.eye(inner, dtype=torch.float64)
        assert torch.allclose(U.mT @ U, eye.expand(2, 3, inner, inner))
        assert torch.allclose(Vt @ Vt.mT, eye.expand(2, 3, inner, inner))
        assert torch.allclose(S, torch.linalg.svdvals(M.AB)[..., :inner])
        assert Vt.shape == (2, 3, inner, columns)
        named = hooked_transformer.FactoredMatrix(*M.factors)
        assert named.Vh.shape == named.V.shape == (2, 3, columns, inner)
        assert torch.allclose(named.collapse_l(), named.U.mT @ M.AB)
        assert torch.allclose(named.collapse_r(), M.AB @ named.V)


def test_sums_and_multiples_are_those_of_the_dense_product():
    M, N, row = factored(), factored(seed=1), torch.randn(7, dtype=torch.float64)
    per_matrix = torch.randn(2, 3, 1, 1, dtype=torch.float64)
    assert torch.allclose((M + N).AB, M.AB + N.AB)
    assert torch.allclose((M - N).AB, M.AB - N.AB)
    assert torch.allclose((M + row).AB, M.AB + row)
    assert torch.allclose((M + row[:, None]).AB, M.AB + row[:, None])
    for each in (torch.randn(2, 3, 1, 7), torch.randn(3, 7, 1)):
        assert torch.allclose((M + each.double()).AB, M.AB + each)
    assert torch.allclose((-M / 2 * 3.0).AB, -1.5 * M.AB)
    assert torch.allclose((torch.tensor(2.0) * M).AB, 2 * M.AB)
    assert torch.allclose((M * per_matrix).AB, M.AB * per_matrix)
    A = torch.randn(4, 4)
    assert torch.allclose((FactoredMatrix(A, A) * 2.0).AB, 2 * A @ A)


def test_a_vector_collapses_the_product():
    M, v = factored(), torch.randn(7, dtype=torch.float64)
    assert torch.allclose(M @ v, M.AB @ v) and torch.allclose(v @ M, v @ M.AB)


@settings(max_examples=40, deadline=None)
@given(
    lead=st.sampled_from([(), (2,), (2, 1)]),
    rows=st.integers(1, 12),
    columns=st.integers(1, 9),
    k=st.integers(1, 9),
    block_bytes=st.sampled_from([1, 300, 2**20]),
    shrink=st.floats(0.1, 1.0),
)
def test_the_largest_entries_are_those_of_the_dense_product(
    lead, rows, columns, k, block_bytes, shrink
):
    """Whatever the blocks, and where short rows are passed over."""
    M = factored(lead, rows, 3, columns)
    M = FactoredMatrix(M.A * shrink ** torch.arange(rows)[:, None], M.B)
    k = min(k, rows * columns)
    top = M.top(k, block_bytes=block_bytes)
    assert torch.allclose(top.values, M.AB.flatten(-2).topk(k).values)
    found = M.AB.flatten(-2).gather(-1, top.rows * columns + top.columns)
    assert torch.allclose(found, top.values)
    assert top.values.shape == (*lead, k)


def test_the_diagonal_is_exact_in_any_blocks():
    M = factored()
    assert torch.allclose(M.diagonal(block_bytes=1), M.AB.diagonal(dim1=-2, dim2=-1))


@pytest.mark.filterwarnings("ignore:FactoredMatrix.Vh has always returned V")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_agrees_with_transformer_lens(dtype):
    """An independent implementation of the same object, where both have the same names."""
    theirs = pytest.importorskip("transformer_lens").FactoredMatrix
    M = factored()
    A, B = (half.to(dtype) for half in M.pair)
    ours, other = hooked_transformer.FactoredMatrix(A, B), theirs(A, B)
    tolerance = {"atol": 1e-4 if dtype == torch.float32 else 1e-10}
    for name in ("AB", "S", "V", "Vh", "shape", "ndim", "ldim", "mdim", "rdim"):
        mine, its = getattr(ours, name), getattr(other, name)
        if name in ("V", "Vh"):  # singular vectors are known up to their sign
            mine, its = mine.abs(), its.abs()
        assert (
            torch.allclose(mine, its, **tolerance)
            if isinstance(mine, torch.Tensor)
            else (mine == its)
        ), name
    assert torch.allclose(ours.norm(), other.norm(), **tolerance)
    assert torch.allclose(ours.T.AB, other.T.AB, **tolerance)
    assert torch.allclose(ours.collapse_l().abs(), other.collapse_l().abs(), **tolerance)
    assert torch.allclose(ours.collapse_r().abs(), other.collapse_r().abs(), **tolerance)
    assert torch.allclose(ours[1, 2].AB, other[1, 2].AB, **tolerance)
    assert torch.allclose(ours[0, 1, 3].AB, other[0, 1, 3].AB, **tolerance)


def test_leading_dims_broadcast():
    A, B = torch.randn(2, 1, 5, 3), torch.randn(4, 3, 6)
    assert FactoredMatrix(A, B).shape == (2, 4, 5, 6)
    assert torch.allclose(FactoredMatrix(A, B).AB, A @ B)


def test_the_size_of_the_factors_bounds_the_norm_and_the_eigenvalues():
    M = factored()
    M = FactoredMatrix(M.A, M.B @ M.A, M.B)
    assert (M.norm() <= M.size()).all() and (M.eigenvalues.abs().sum(-1) <= M.size()).all()
    norms = [torch.linalg.matrix_norm(factor) for factor in M.factors]
    assert torch.allclose(M.size(), norms[0] * norms[1] * norms[2])
