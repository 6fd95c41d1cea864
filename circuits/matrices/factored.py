"""FactoredMatrix: a product of matrices as its factors, for d_vocab x d_vocab circuits.

W_E W_V W_O W_U has 50257 x 50257 entries per head and rank 64. Only `AB` multiplies it out. Norms,
traces and eigenvalues come from matrices of the narrow inner size. The largest entries come from
blocks of rows. Factors that all heads share (W_E, W_U) are held once.
"""

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from circuits.matrices.products import (
    SVD,
    Entries,
    Largest,
    Progress,
    at_least_single,
    bias_factors,
    blocks,
    chain,
    joined,
    split_index,
    svd,
)

Factor = Float[Tensor, "*#lead _ _"]


class FactoredMatrix:
    """The product of two or more factors with any leading dims (layer, head).

    Leading dims broadcast. ValueError if the inner dims differ. `A` and `B` are the products left
    and right of the narrowest inner dim; only `AB` multiplies all factors out. `norm()`, `trace()`,
    `diagonal()` and `svd()` are named as in torch.Tensor, the other names are TransformerLens's.
    """

    def __init__(self, *factors: Factor) -> None:
        shapes = [list(factor.shape) for factor in factors]
        inner = [(a[-1:], b[-2:-1]) for a, b in pairwise(shapes)]
        if len(factors) < 2 or any(len(s) < 2 for s in shapes) or any(a != b for a, b in inner):
            raise ValueError(
                f"expected two or more matrices, the last dim of each equal to the second last of "
                f"the next, got {shapes}"
            )
        self.factors = factors
        self.lead = torch.broadcast_shapes(*(factor.shape[:-2] for factor in factors))

    @property
    def shape(self) -> torch.Size:
        """Shape of the product: lead, rows, columns."""
        return torch.Size((*self.lead, self.ldim, self.rdim))

    @property
    def ndim(self) -> int:
        """The number of dims of the product."""
        return len(self.lead) + 2

    @property
    def ldim(self) -> int:
        """The number of rows."""
        return self.factors[0].shape[-2]

    @property
    def mdim(self) -> int:
        """The narrowest inner dim, which bounds the rank."""
        return self.factors[self._cut - 1].shape[-1]

    @property
    def rdim(self) -> int:
        """The number of columns."""
        return self.factors[-1].shape[-1]

    @property
    def _cut(self) -> int:
        """The number of factors left of the narrowest inner dim."""
        widths = [factor.shape[-1] for factor in self.factors[:-1]]
        return 1 + widths.index(min(widths))

    @property
    def _halves(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return self.factors[: self._cut], self.factors[self._cut :]

    def _product(self, factors: tuple[Tensor, ...]) -> Tensor:
        dense = chain(*factors)
        return dense.expand(*self.lead, *dense.shape[-2:])

    @property
    def A(self) -> Float[Tensor, "*lead rows inner"]:
        """The product of the factors left of the narrowest inner dim."""
        return self._product(self._halves[0])

    @property
    def B(self) -> Float[Tensor, "*lead inner columns"]:
        """The product of the factors right of the narrowest inner dim."""
        return self._product(self._halves[1])

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """(A, B)."""
        return self.A, self.B

    @property
    def AB(self) -> Float[Tensor, "*lead rows columns"]:
        """The dense product; a full circuit has d_vocab x d_vocab numbers per head."""
        return self._product(self.factors)

    @property
    def BA(self) -> Float[Tensor, "*lead inner inner"]:
        """B @ A, a small matrix with the trace and the nonzero eigenvalues of AB; AB must be
        square."""
        self._require_square("BA")
        left, right = self._halves
        return self._product(right + left)

    @property
    def T(self) -> "FactoredMatrix":
        """The transpose: the transposed factors in reverse order."""
        return type(self)(*(factor.mT for factor in reversed(self.factors)))

    def __getitem__(self, index: Any) -> "FactoredMatrix":
        """Index leading dims as in a tensor, `OV[1, 4]`, and rows and columns separately,
        `OV[..., 5, :]`. A single row or column stays as a dim of size 1. IndexError for an index
        out of range."""
        lead, rows, columns = split_index(index, self.shape)
        factors = list(self.factors)
        if any(part is not ... for part in lead):
            # A factor without leading dims is shared by all of them: it is not copied.
            shared = [factor.ndim == 2 for factor in factors]
            shared[0] &= not all(shared)
            factors = [
                factor if same else factor.expand(*self.lead, *factor.shape[-2:])[lead]
                for factor, same in zip(factors, shared, strict=True)
            ]
        factors[0] = factors[0][..., rows, :]
        factors[-1] = factors[-1][..., :, columns]
        return type(self)(*factors)

    def rows(self, index: Int[Tensor, " n"] | Sequence[int] | slice) -> Factor:
        """These rows of the product, [*lead n columns]."""
        return self[..., index, :].AB

    def columns(self, index: Int[Tensor, " n"] | Sequence[int] | slice) -> Factor:
        """These columns of the product, [*lead rows n]."""
        return self[..., :, index].AB

    def __matmul__(self, other: "FactoredMatrix | Tensor") -> "FactoredMatrix | Tensor":
        """A FactoredMatrix if `other` is a matrix or a product, a tensor if it is a vector."""
        if isinstance(other, FactoredMatrix):
            return type(self)(*self.factors, *other.factors)
        if other.ndim == 1:
            return chain(*self.factors, other[:, None]).squeeze(-1)
        return type(self)(*self.factors, other)

    def __rmatmul__(self, other: Tensor) -> "FactoredMatrix | Tensor":
        if other.ndim == 1:
            return chain(other[None], *self.factors).squeeze(-2)
        return type(self)(other, *self.factors)

    def __mul__(self, scalar: int | float | Tensor) -> "FactoredMatrix":
        """The product times a number, or times a number for each leading index, [*lead 1 1]."""
        if isinstance(scalar, Tensor) and scalar.numel() != 1 and scalar.shape[-2:] != (1, 1):
            raise ValueError(
                f"* needs a number, or a number for each leading index as [*lead 1 1], got "
                f"{list(scalar.shape)}; for products of matrices write @"
            )
        if isinstance(scalar, Tensor) and scalar.numel() == 1:
            scalar = scalar.reshape(())
        sizes = [factor.numel() for factor in self.factors]
        smallest = sizes.index(min(sizes))
        return type(self)(*(f * scalar if i == smallest else f for i, f in enumerate(self.factors)))

    __rmul__ = __mul__

    def __truediv__(self, scalar: int | float | Tensor) -> "FactoredMatrix":
        return self * (1 / scalar)

    def __neg__(self) -> "FactoredMatrix":
        return self * -1

    def __add__(self, other: "FactoredMatrix | Tensor") -> "FactoredMatrix":
        """The sum with another product or with a bias. A bias [columns] or [*lead 1 columns] is
        added to every row, a bias [*lead rows 1] to every column. The inner dims add up."""
        if not isinstance(other, FactoredMatrix):
            other = type(self)(*bias_factors(other, self.ldim, self.rdim))
        (A, B), (C, D) = self.pair, other.pair
        if A.shape[-2] != C.shape[-2] or B.shape[-1] != D.shape[-1]:
            raise ValueError(f"cannot add {list(self.shape)} and {list(other.shape)}")
        return type(self)(joined(A, C, -1), joined(B, D, -2))

    __radd__ = __add__

    def __sub__(self, other: "FactoredMatrix | Tensor") -> "FactoredMatrix":
        return self + -other

    def norm(self) -> Float[Tensor, "*lead"]:
        """The Frobenius norm: ||AB||^2 = tr(A^T A B B^T), from the two Gram matrices.

        If the product nearly cancels, the error is up to the square root of the precision times
        `size`.
        """
        left, right = (tuple(map(at_least_single, half)) for half in self._halves)
        A_A = chain(*(factor.mT for factor in reversed(left)), *left)
        B_B = chain(*right, *(factor.mT for factor in reversed(right)))
        return (A_A * B_B).sum((-2, -1)).clamp(min=0).sqrt().expand(self.lead)

    def size(self) -> Float[Tensor, "*lead"]:
        """The product of the norms of all factors: an upper bound of the norm and of sum |eig|.
        Rounding errors are proportional to it."""
        norms = [torch.linalg.matrix_norm(at_least_single(f)) for f in self.factors]
        return math.prod(norms[1:], start=norms[0]).expand(self.lead)

    def trace(self) -> Float[Tensor, "*lead"]:
        """The sum of the diagonal of AB and of its eigenvalues; AB must be square."""
        self._require_square("trace")
        return self.BA.diagonal(dim1=-2, dim2=-1).sum(-1)

    def diagonal(self, *, block_bytes: int = 2**26) -> Float[Tensor, "*lead rows"]:
        """The diagonal of AB, in blocks of at most `block_bytes` per half; AB must be square."""
        self._require_square("diagonal")
        row_bytes = math.prod(self.lead) * self.mdim * self.factors[0].element_size()
        parts = [self[..., at, at].pair for at in blocks(self.ldim, row_bytes, block_bytes)]
        return torch.cat([(A * B.mT).sum(-1) for A, B in parts], -1)

    @property
    def eigenvalues(self) -> Complex[Tensor, "*lead inner"]:
        """The eigenvalues of the small BA. They are the eigenvalues of AB that can differ from 0;
        AB must be square. ValueError if BA is not finite."""
        self._require_square("eigenvalues")
        BA = FactoredMatrix(*map(at_least_single, self.factors)).BA
        if not BA.isfinite().all():  # LAPACK may crash on it
            raise ValueError("no eigenvalues: the product holds numbers that are not finite")
        return torch.linalg.eigvals(BA)

    def svd(self) -> SVD:
        """U, S, Vt of AB, computed at each call: QR gives orthonormal bases of A and B, then comes
        the SVD of the small matrix between them. (Elhage et al. 2021 take the SVD of A and of B;
        QR is enough.)"""
        return svd(*FactoredMatrix(*map(at_least_single, self.factors)).pair)

    def top(self, k: int, *, block_bytes: int = 2**26, progress: Progress | None = None) -> Entries:
        """The k largest entries of each matrix, exact, without the dense matrix.

        Rows are multiplied out in blocks of at most `block_bytes` (64 MiB). `(-M).top(k)` gives the
        smallest entries with the opposite sign. ValueError for k < 1 or k > rows x columns.
        """
        if not 1 <= k <= self.ldim * self.rdim or 0 in self.lead:
            raise ValueError(
                f"k must be 1 to {self.ldim} x {self.rdim}, the entries of each matrix of "
                f"{list(self.shape)}, got k={k}"
            )
        parts = blocks(self.ldim, self.rdim * self.factors[0].element_size(), block_bytes)
        steps = [(i, part) for i in range(math.prod(self.lead)) for part in parts]
        steps = steps if progress is None else progress(steps)
        found = []
        for i, steps_of_one in groupby(steps, itemgetter(0)):
            search = Largest(*self._matrix(i), k)
            for _, part in steps_of_one:
                search.look_at(part)
            found.append(search.found)
        values, rows, columns = (torch.stack(part) for part in zip(*found, strict=True))
        return Entries(*(part.reshape(*self.lead, k) for part in (values, rows, columns)))

    def _matrix(self, i: int) -> tuple[Tensor, Tensor]:
        """(A, B) of the i-th matrix, in the flat order of the leading dims."""
        lead = torch.unravel_index(torch.tensor(i), self.lead) if self.lead else ()
        return self[(*(int(n) for n in lead), ...)].pair

    def _require_square(self, what: str) -> None:
        if self.ldim != self.rdim:
            raise ValueError(f"{what} needs a square product, got {list(self.shape)}")

    def __repr__(self) -> str:
        return f"FactoredMatrix({' @ '.join(str(list(f.shape)) for f in self.factors)})"
