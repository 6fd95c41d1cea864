"""FactoredMatrix: a product A @ B kept apart, so that a d_vocab x d_vocab circuit stays small."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FactoredMatrix:
    """A @ B with any leading dims (layer, head), never multiplied out unless `AB` is asked for.

    ValueError if the inner dims differ; leading dims broadcast. Norms, traces and eigenvalues come
    from products of the small inner size.
    """

    A: Float[Tensor, "*lead_a rows inner"]
    B: Float[Tensor, "*lead_b inner columns"]

    def __post_init__(self) -> None:
        if self.A.ndim < 2 or self.B.ndim < 2 or self.A.shape[-1] != self.B.shape[-2]:
            raise ValueError(
                f"A @ B wants the last dim of A to be the second last of B, "
                f"got {list(self.A.shape)} and {list(self.B.shape)}"
            )
        lead = torch.broadcast_shapes(self.A.shape[:-2], self.B.shape[:-2])
        object.__setattr__(self, "A", self.A.expand(*lead, *self.A.shape[-2:]))
        object.__setattr__(self, "B", self.B.expand(*lead, *self.B.shape[-2:]))

    @property
    def shape(self) -> torch.Size:
        """Shape of the product: lead, rows, columns."""
        return torch.Size((*self.A.shape[:-1], self.B.shape[-1]))

    @property
    def ndim(self) -> int:
        """Number of dims of the product."""
        return self.A.ndim

    @property
    def AB(self) -> Float[Tensor, "*lead rows columns"]:
        """The dense product; for a full circuit that is d_vocab x d_vocab numbers per head."""
        return self.A @ self.B

    @property
    def T(self) -> "FactoredMatrix":
        """The transpose, B^T @ A^T."""
        return FactoredMatrix(self.B.mT, self.A.mT)

    def __getitem__(self, index: Any) -> "FactoredMatrix":
        """Index the leading dims as one would a tensor: `full_OV[1, 4]`."""
        lead = self.shape[:-2]
        asked = index if isinstance(index, tuple) else (index,)
        if len([part for part in asked if part is not None and part is not ...]) > len(lead):
            raise ValueError(
                f"only the leading dims {list(lead)} are indexed; for entries take .AB, got {index}"
            )
        rest = () if ... in [part for part in asked if part is ...] else (...,)
        ends = (slice(None), slice(None)) if not rest else ()
        return FactoredMatrix(self.A[(*asked, *rest, *ends)], self.B[(*asked, *rest, *ends)])

    def __matmul__(
        self, other: "FactoredMatrix | Float[Tensor, '*lead columns more']"
    ) -> "FactoredMatrix":
        """The product with a matrix or another product, kept at the smaller inner size."""
        if isinstance(other, FactoredMatrix):
            middle = self.B @ other.A
            if self.A.shape[-1] <= other.B.shape[-2]:
                return FactoredMatrix(self.A, middle @ other.B)
            return FactoredMatrix(self.A @ middle, other.B)
        return FactoredMatrix(self.A, self.B @ other)

    def __rmatmul__(self, other: Float[Tensor, "*lead more rows"]) -> "FactoredMatrix":
        return FactoredMatrix(other @ self.A, self.B)

    @property
    def norm(self) -> Float[Tensor, "*lead"]:
        """Frobenius norm: ||AB||^2 = tr((A^T A)(B B^T)), from the two Gram matrices."""
        squared = ((self.A.mT @ self.A) * (self.B @ self.B.mT)).sum((-2, -1))
        return squared.clamp(min=0).sqrt()

    @property
    def trace(self) -> Float[Tensor, "*lead"]:
        """Sum of the diagonal of AB, which is the sum of its eigenvalues; AB must be square."""
        self._require_square("trace")
        return (self.A * self.B.mT).sum((-2, -1))

    @property
    def diagonal(self) -> Float[Tensor, "*lead rows"]:
        """The diagonal of AB; AB must be square."""
        self._require_square("diagonal")
        return (self.A * self.B.mT).sum(-1)

    @property
    def eigenvalues(self) -> Complex[Tensor, "*lead inner"]:
        """The eigenvalues of AB that can differ from 0: those of the small B @ A, which shares
        them; AB must be square."""
        self._require_square("eigenvalues")
        return torch.linalg.eigvals(self.B @ self.A)

    def _require_square(self, what: str) -> None:
        if self.shape[-1] != self.shape[-2]:
            raise ValueError(f"{what} wants a square product, got {list(self.shape)}")

    def __repr__(self) -> str:
        return f"FactoredMatrix({list(self.A.shape)} @ {list(self.B.shape)})"
