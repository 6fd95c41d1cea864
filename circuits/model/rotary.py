"""Rotary: positions that turn queries and keys, so that scores depend on how far back a source is.

The dims of q and k are taken in pairs, the planes. Plane a turns by the angle w_a p at position p,
with w_a = base^(-2a / rotary_dim). As row vectors, q and k at position p are multiplied with R(p),
which is [[cos, sin], [-sin, cos]] in each plane, and the identity in the dims that are not turned.
R(i) R(j)^T = R(i - j), so the score is q_i R(i - j) k_j^T / scale. (Su et al. 2021, "RoFormer",
https://arxiv.org/abs/2104.09864)
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.model.config import GPTConfig

Rows = slice | Int[Tensor, "batch pos"]
"The numbers of the positions of a run: the same for all rows, or one for each token."
PerPlane = Float[Tensor, "... plane"]


class Rotary(nn.Module):
    """x at position p -> x R(p), for queries and keys. The heads of all layers share one table."""

    cos: Float[Tensor, "n_ctx plane"]
    sin: Float[Tensor, "n_ctx plane"]

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.n_ctx, self.base, self.d_head = cfg.n_ctx, cfg.rotary_base or 1e4, cfg.d_head
        self.dim, self.adjacent = cfg.turned_dims, cfg.rotary_adjacent_pairs
        for name, table in zip(("cos", "sin"), self.tables(torch.zeros(())), strict=True):
            self.register_buffer(name, table, persistent=False)

    def forward(
        self, x: Float[Tensor, "batch pos head d_head"], rows: Rows | None = None
    ) -> Float[Tensor, "batch pos head d_head"]:
        """Queries or keys, turned. Without `rows` they are those of the first positions."""
        rows = slice(x.shape[1]) if rows is None else rows
        return self.turned(x, self.cos[rows].unsqueeze(-2), self.sin[rows].unsqueeze(-2))

    def turned(
        self, x: Float[Tensor, "... d_head"], cos: PerPlane, sin: PerPlane
    ) -> Float[Tensor, "... d_head"]:
        """x R, for the cosines and sines of R; leading dims broadcast. The turned dims are linear
        in cosine and sine."""
        a, b = self.planes(x)
        pair = a * cos - b * sin, a * sin + b * cos
        planes = torch.stack(pair, -1).flatten(-2) if self.adjacent else torch.cat(pair, -1)
        if self.dim == self.d_head:
            return planes
        rest = x[..., self.dim :]
        return torch.cat([planes, rest.expand(*planes.shape[:-1], -1)], -1)

    def planes(self, x: Float[Tensor, "... d_head"]) -> tuple[PerPlane, PerPlane]:
        """The two coordinates of x in each plane, in the order of growing wavelengths."""
        turned = x[..., : self.dim]
        if self.adjacent:
            return turned[..., ::2], turned[..., 1::2]
        return turned[..., : self.dim // 2], turned[..., self.dim // 2 :]

    def matrix(self, offsets: Int[Tensor, "*offset"]) -> Float[Tensor, "*offset d_head d_head"]:
        """R(offset), for offsets from 0 to n_ctx - 1."""
        return self._matrix(self.cos[offsets], self.sin[offsets])

    def mean_matrix(self) -> Float[Tensor, "d_head d_head"]:
        """The mean of R over the offsets 0 to n_ctx - 1. Planes that turn fast vanish from it;
        slow planes, and dims that are not turned, stay."""
        return self._matrix(self.cos.mean(0), self.sin.mean(0))

    def _matrix(self, cos: PerPlane, sin: PerPlane) -> Float[Tensor, "... d_head d_head"]:
        units = torch.eye(self.d_head, dtype=cos.dtype, device=cos.device)
        return self.turned(units, cos[..., None, :], sin[..., None, :])

    def frequencies(self, like: Float[Tensor, "..."]) -> Float[Tensor, " plane"]:
        """w_a of each plane, in radians per position, from 1 downwards."""
        steps = torch.arange(0, self.dim, 2, dtype=like.dtype, device=like.device) / self.dim
        return 1.0 / self.base**steps

    def tables(self, like: Float[Tensor, "..."]) -> tuple[Tensor, Tensor]:
        """cos and sin of all angles, in the dtype of `like`. Angles of half precision are made in
        float32, as in the models that are trained so."""
        fine = torch.zeros((), dtype=torch.promote_types(like.dtype, torch.float32)).to(like.device)
        places = torch.arange(self.n_ctx, dtype=fine.dtype, device=fine.device)
        angles = torch.outer(places, self.frequencies(fine))
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> "Rotary":
        """Tables of another dtype are made anew: float64 has exact angles, and not those of
        float32."""
        before = self.cos.dtype
        super()._apply(fn, recurse)
        if self.cos.dtype != before:
            self.cos, self.sin = self.tables(self.cos)
        return self
