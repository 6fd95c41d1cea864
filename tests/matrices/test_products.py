"""Products multiplied in the cheapest order, and searched in blocks for their largest entries."""

from functools import reduce
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from circuits import FactoredMatrix
from circuits.matrices import Largest, chain


@settings(max_examples=30, deadline=None)
@given(shapes=st.lists(st.integers(1, 6), min_size=3, max_size=7), shared=st.integers(0, 5))
def test_a_chain_of_factors_is_their_product_in_any_order(shapes, shared):
    generator = torch.Generator().manual_seed(sum(shapes))
    factors = [
        torch.randn(*(() if i == shared else (2,)), a, b, generator=generator, dtype=torch.float64)
        for i, (a, b) in enumerate(pairwise(shapes))
    ]
    one_by_one = reduce(torch.matmul, factors)
    assert torch.allclose(chain(*factors), one_by_one)
    M = FactoredMatrix(*factors)
    assert torch.allclose(M.A @ M.B, one_by_one.expand(M.shape))
    assert M.mdim == min(shapes[1:-1]) and M.pair[0].shape[-1] == M.mdim


def test_short_rows_are_passed_over_and_progress_sees_every_block():
    seen = []
    A = torch.ones(100, 2)
    A[1:] *= 1e-3
    M = FactoredMatrix(A, torch.ones(2, 10))
    search = Largest(*M.pair, 10)
    search.look_at(slice(0, 1))
    search.A = None  # what is left must not be multiplied out
    search.look_at(slice(1, 100))
    assert search.found.rows.eq(0).all()
    M.top(3, block_bytes=400, progress=lambda steps: seen.extend(steps) or steps)
    assert len(seen) == 10
