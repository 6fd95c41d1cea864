"""Products of matrices: the cheapest order to multiply, the SVD, and the largest entries."""

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Progress = Callable[[Sequence[Any]], Iterable[Any]]
"Wraps the steps of a long loop and shows its progress: tqdm.tqdm, rich.progress.track."


class SVD(NamedTuple):
    """U diag(S) Vt: the columns of U and the rows of Vt are orthonormal; Vt is V^T."""

    U: Float[Tensor, "*lead rows inner"]
    S: Float[Tensor, "*lead inner"]
    Vt: Float[Tensor, "*lead inner columns"]


class Entries(NamedTuple):
    """Entries of a matrix with their rows and columns, largest first."""

    values: Float[Tensor, "*lead k"]
    rows: Int[Tensor, "*lead k"]
    columns: Int[Tensor, "*lead k"]


def chain(*factors: Float[Tensor, "*#lead _ _"]) -> Float[Tensor, "*lead rows columns"]:
    """The product of the factors, multiplied in the order that takes the fewest operations.

    Leading dims broadcast and count as operations: factors that all heads share are multiplied
    once.
    """

    @cache
    def cheapest(first: int, last: int) -> tuple[float, int]:
        """The fewest operations for the factors first ... last, and the factor to split after."""
        if first == last:
            return 0.0, first
        lead = math.prod(torch.broadcast_shapes(*(f.shape[:-2] for f in factors[first : last + 1])))
        ends = lead * factors[first].shape[-2] * factors[last].shape[-1]
        return min(
            (
                cheapest(first, split)[0]
                + cheapest(split + 1, last)[0]
                + ends * factors[split].shape[-1],
                split,
            )
            for split in range(first, last)
        )

    def product(first: int, last: int) -> Tensor:
        if first == last:
            return factors[first]
        split = cheapest(first, last)[1]
        return product(first, split) @ product(split + 1, last)

    return product(0, len(factors) - 1)


def at_least_single(W: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """A half-precision tensor in float32, where norms do not overflow and LAPACK works; any other
    tensor unchanged."""
    return W.to(torch.promote_types(W.dtype, torch.float32))


def svd(A: Float[Tensor, "*lead rows inner"], B: Float[Tensor, "*lead inner columns"]) -> SVD:
    """The SVD of A @ B, from QR of A and of B and the SVD of a small matrix."""
    left, right = torch.linalg.qr(A), torch.linalg.qr(B.mT)
    U, S, Vt = torch.linalg.svd(left.R @ right.R.mT, full_matrices=False)
    return SVD(left.Q @ U, S, Vt @ right.Q.mT)


def blocks(rows: int, row_bytes: int, block_bytes: int) -> list[slice]:
    """Slices that cover `rows` rows. Each takes at most `block_bytes`, and at least one row."""
    size = max(1, block_bytes // max(row_bytes, 1))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


class Largest:
    """The k largest entries of A @ B among the rows visited so far, in order of their norm.

    By Cauchy and Schwarz no entry exceeds the norm of its row of A times the largest norm of a
    column of B. When this bound falls below the k-th entry found, the other rows are skipped.
    """

    def __init__(
        self, A: Float[Tensor, "rows inner"], B: Float[Tensor, "inner columns"], k: int
    ) -> None:
        if not (A.isfinite().all() and B.isfinite().all()):
            raise ValueError("no largest entries: the product holds numbers that are not finite")
        self.k, self.B = k, B
        length = A.norm(dim=-1)
        self.order = length.argsort(descending=True)
        self.A = A[self.order]
        slack = 1 + 1e-4  # far above the rounding of a dot product
        self.bound = length[self.order] * B.norm(dim=-2).max() * slack
        nothing = self.order.new_empty(0)
        self.found = Entries(A.new_empty(0), nothing, nothing)

    def look_at(self, at: slice) -> None:
        """Search the rows `at`, in order of their norm."""
        values = self.found.values
        least = values[-1] if len(values) == self.k else values.new_tensor(-math.inf)
        if self.bound[at.start] < least:
            return
        dense = self.A[at] @ self.B
        above = (dense.amax(-1) > least).nonzero().flatten()
        for rows in above.split(max(1, len(dense) // 16)):  # a copy of a few rows at a time
            self._merge(dense[rows], self.order[at][rows])

    def _merge(self, dense: Float[Tensor, "row columns"], rows: Int[Tensor, " row"]) -> None:
        """Keep the k largest of the entries found so far and the entries of these rows."""
        columns = dense.shape[1]
        entries, flat = dense.flatten().topk(min(self.k, dense.numel()))
        new = Entries(entries, rows[flat // columns], flat % columns)
        joined = Entries(*(torch.cat(both) for both in zip(self.found, new, strict=True)))
        best = joined.values.topk(min(self.k, len(joined.values))).indices
        self.found = Entries(*(part[best] for part in joined))


def joined(
    left: Float[Tensor, "*#lead _ _"], right: Float[Tensor, "*#lead _ _"], dim: int
) -> Float[Tensor, "*lead _ _"]:
    """Two matrices side by side (dim -1) or stacked (dim -2), with leading dims broadcast."""
    lead = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    return torch.cat([half.expand(*lead, *half.shape[-2:]) for half in (left, right)], dim)


def bias_factors(
    bias: Float[Tensor, "..."], rows: int, columns: int
) -> tuple[Float[Tensor, "... _ inner"], Float[Tensor, "... inner _"]]:
    """Two factors of rank 1, one of them ones, for a bias on every row ([columns] or [*lead 1
    columns]) or on every column ([*lead rows 1])."""
    bias = bias[None] if bias.ndim == 1 else bias
    if bias.shape[-2:] == (1, columns):
        return bias.new_ones(rows, 1), bias
    if bias.shape[-2:] == (rows, 1):
        return bias, bias.new_ones(1, columns)
    raise ValueError(
        f"a bias on {rows} x {columns} must be [{columns}], [1 {columns}] or [{rows} 1], "
        f"got {list(bias.shape)}"
    )


def split_index(index: Any, shape: torch.Size) -> tuple[tuple[Any, ...], Any, Any]:
    """The parts of an index for the leading dims, the rows and the columns. A single row or column
    becomes a slice. IndexError for more indices than dims."""
    index = index if isinstance(index, tuple) else (index,)
    taken = sum(_dims_taken(part) for part in index)
    if taken > len(shape):
        raise IndexError(f"{taken} indices for the {len(shape)} dims {list(shape)}")
    at = next((i for i, part in enumerate(index) if part is ...), len(index))
    skipped = (slice(None),) * (len(shape) - taken)
    *lead, rows, columns = (*index[:at], *skipped, *index[at + 1 :])
    lead = (*lead, ..., slice(None), slice(None))
    return lead, _kept(rows, shape[-2]), _kept(columns, shape[-1])


def _dims_taken(part: Any) -> int:
    """The number of dims that one entry of an index takes."""
    if part is None or part is ...:
        return 0
    return part.ndim if isinstance(part, Tensor) and part.dtype == torch.bool else 1


def _kept(part: Any, size: int) -> Any:
    """An index of rows or columns that keeps the dim: a number becomes a slice."""
    if part is None or (isinstance(part, Tensor) and part.ndim > 1):
        raise IndexError("choose rows and columns by a number, a slice or a list of numbers")
    if isinstance(part, slice | list) or (isinstance(part, Tensor) and part.ndim == 1):
        return part
    at = operator.index(part)
    if not -size <= at < size:
        raise IndexError(f"there is no index {at} among {size} rows or columns")
    return slice(at, at + 1 or None)
