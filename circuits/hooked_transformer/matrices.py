"""FactoredMatrix with TransformerLens's meaning of `svd`, `Vh` and a few other names."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from circuits.matrices import SVD, factored


class FactoredMatrix(factored.FactoredMatrix):
    """A product of matrices, not multiplied out. As in TransformerLens, `svd()` and `Vh` give V,
    with the right singular vectors as columns: U diag(S) V^T is AB."""

    def svd(self) -> SVD:
        """U, S, V of AB, singular values largest first. The field of V has the name `Vt`."""
        U, S, Vt = super().svd()
        return SVD(U, S, Vt.mT)

    U = property(lambda self: self.svd()[0], doc="Left singular vectors as columns.")
    S = property(lambda self: self.svd()[1], doc="Singular values, largest first.")
    V = property(lambda self: self.svd()[2], doc="Right singular vectors as columns.")
    Vh = property(lambda self: self.svd()[2], doc="V, under TransformerLens's name for it.")

    def collapse_l(self) -> Float[Tensor, "*lead inner columns"]:
        """diag(S) V^T, which is U^T AB."""
        _, S, V = self.svd()
        return S[..., :, None] * V.mT

    def collapse_r(self) -> Float[Tensor, "*lead rows inner"]:
        """U diag(S), which is AB V."""
        U, S, _ = self.svd()
        return U * S[..., None, :]

    def make_even(self) -> "FactoredMatrix":
        """The same product with the factors U sqrt(S) and sqrt(S) V^T, equal in norm."""
        U, S, V = self.svd()
        half = S.sqrt()
        return FactoredMatrix(U * half[..., None, :], half[..., :, None] * V.mT)

    def unsqueeze(self, k: int) -> "FactoredMatrix":
        """The product with one more leading dim, of size 1, before dim k."""
        if not 0 <= k <= len(self.lead):
            raise ValueError(f"there are {len(self.lead)} leading dims, expected k from 0 to "
                             f"{len(self.lead)}, got {k}")  # fmt: skip
        return FactoredMatrix(self.A.unsqueeze(k), self.B.unsqueeze(k))

    def get_corner(self, k: int = 3) -> Tensor:
        """The first k entries of every dim of AB."""
        lead: Sequence[Any] = [slice(k)] * len(self.lead)
        return self[(*lead, slice(k), slice(k))].AB

    @property
    def has_leading_dims(self) -> bool:
        """True if the product has leading dims (layer, head)."""
        return bool(self.lead)
