"""FactoredMatrix with those names of TransformerLens's that mean something else in ours."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuits.matrices import SVD, factored


class FactoredMatrix(factored.FactoredMatrix):
    """A product of matrices kept apart, whose `svd()` and `Vh` give V as TransformerLens's do, with
    the right singular vectors as columns: U diag(S) V^T is AB."""

    def svd(self) -> SVD:
        """U, S, V of AB (the last under the name of Vh), singular values largest first."""
        U, S, Vt = super().svd()
        return SVD(U, S, Vt.mT)

    U = property(lambda self: self.svd()[0], doc="Left singular vectors as columns.")
    S = property(lambda self: self.svd()[1], doc="Singular values, largest first.")
    V = property(lambda self: self.svd()[2], doc="Right singular vectors as columns.")
    Vh = property(lambda self: self.svd()[2], doc="V, under TransformerLens's name for it.")

    def collapse_l(self) -> Float[Tensor, "*lead inner columns"]:
        """diag(S) V^T: the product up to a rotation of its rows."""
        _, S, V = self.svd()
        return S[..., :, None] * V.mT

    def collapse_r(self) -> Float[Tensor, "*lead rows inner"]:
        """U diag(S): the product up to a rotation of its columns."""
        U, S, _ = self.svd()
        return U * S[..., None, :]

    def make_even(self) -> "FactoredMatrix":
        """U sqrt(S) and sqrt(S) V^T: the same product, with half of the size in each factor."""
        U, S, V = self.svd()
        half = S.sqrt()
        return FactoredMatrix(U * half[..., None, :], half[..., :, None] * V.mT)

    def unsqueeze(self, k: int) -> "FactoredMatrix":
        """With one more leading dim, of size 1, before dim k."""
        if not 0 <= k <= len(self.lead):
            raise ValueError(f"there are {len(self.lead)} leading dims, wanted k from 0 to "
                             f"{len(self.lead)}, got {k}")  # fmt: skip
        return FactoredMatrix(self.A.unsqueeze(k), self.B.unsqueeze(k))

    def get_corner(self, k: int = 3) -> Tensor:
        """The first k entries of every dim of AB."""
        lead: Sequence[Any] = [slice(k)] * len(self.lead)
        return self[(*lead, slice(k), slice(k))].AB

    @property
    def has_leading_dims(self) -> bool:
        """True when it holds more than one product."""
        return bool(self.lead)
