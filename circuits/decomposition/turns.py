"""Turns: the matrices R(d) of rotary positions between the query and the key of a circuit.

The score of a source d positions back is x W_Q R(d) W_K^T y^T / scale, so a head has a QK circuit
for every offset d. The mean over the offsets 0 to n_ctx - 1 is one circuit again. In it slow
planes and dims that are not turned stay, and fast planes vanish: it is the part of a head that does
not depend on the distance. See `circuits.decomposition.offsets` for the part that does.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from circuits.matrices import at_least_single
from circuits.model import GPT, Rotary

Offset = int | Sequence[int] | Int[Tensor, "*offset"] | None
"How many positions a source is back: one number, several, or None for all from 0 to n_ctx - 1."
Square = Float[Tensor, "*lead d_head d_head"]


def rotary_of(model: GPT) -> Rotary:
    """The rotary positions of a model; ValueError if it has none."""
    if model.rotary is None:
        raise ValueError(
            f"positional_embedding_type is {model.cfg.positional_embedding_type!r}: only rotary "
            f"positions have a QK circuit for every offset; see positional_QK"
        )
    return model.rotary


def turns(model: GPT, offset: Offset = None, lead: int = 2) -> tuple[Square, ...]:
    """R(offset) as a factor between W_Q and W_K^T, or for None the mean of R; no factor without
    rotary positions. Several offsets are a dim before `lead` others, by default [layer head].
    ValueError for an offset that does not exist, and for any without rotary positions."""
    if offset is None:
        return () if model.rotary is None else (model.rotary.mean_matrix(),)
    rotary, back = rotary_of(model), offsets(model, offset)
    R = rotary.matrix(back)
    return (R if isinstance(offset, int) else R[:, *[None] * lead],)


def offsets(model: GPT, offset: Offset) -> Int[Tensor, "*offset"]:
    """The offsets as a tensor; all of them for None. ValueError for one that does not exist."""
    n_ctx = model.cfg.n_ctx
    if offset is None:
        return torch.arange(n_ctx, device=model.W_E.device)
    back = torch.as_tensor(offset, device=model.W_E.device)
    whole = not (back.is_floating_point() or back.dtype == torch.bool)
    if not whole or back.ndim > 1 or ((back < 0) | (back >= n_ctx)).any():
        raise ValueError(f"an offset is a number of positions back, or several, from 0 to "
                         f"{n_ctx - 1}; got {offset!r}")  # fmt: skip
    return back


def mean_turned(
    model: GPT, S: Square, offset: Offset = None, *, back: bool = False
) -> Float[Tensor, "*lead d_head d_head"]:
    """The mean of R(d) S R(d)^T over offsets, or with `back` of R(d)^T S R(d); S itself without
    rotary positions. In the eigenvectors U of all R, entry k, l of S is multiplied with the mean of
    exp(i (a_k - a_l) d)."""
    if model.rotary is None:
        turns(model, offset)  # an error if an offset is asked for
        return S
    U, phases = eigen(model, offset)
    means = phases.mT @ phases.conj() / len(phases)
    kept = means.conj() if back else means
    return (U @ (kept * (U.mH @ S.to(U.dtype) @ U)) @ U.mH).real


def turned_trace(
    model: GPT, X: Square, Y: Square, offset: Offset = None
) -> Float[Tensor, "*lead offset"]:
    """tr(X R(d) Y R(d)^T) at each offset."""
    U, phases = eigen(model, offset)
    x, y = (U.mH @ S.to(U.dtype) @ U for S in (X, Y))
    return ((phases @ (x.mT * y)) * phases.conj()).sum(-1).real


def eigen(
    model: GPT, offset: Offset = None
) -> tuple[Complex[Tensor, "d_head d_head"], Complex[Tensor, "offset d_head"]]:
    """U, and the eigenvalues of R at each offset: R(d) = U diag(eigenvalues at d) U^H. Each plane
    has two eigenvalues exp(i w d) and exp(-i w d); dims that are not turned have 1. The precision
    is at least single."""
    rotary, back = rotary_of(model), torch.atleast_1d(offsets(model, offset))
    cos, sin = rotary.tables(at_least_single(rotary.cos))
    plane = torch.complex(cos[back], sin[back])
    rest = plane.new_ones(len(plane), rotary.d_head - rotary.dim)
    units = torch.eye(rotary.d_head, dtype=cos.dtype, device=cos.device)
    a, b = rotary.planes(units)  # units are rows, so columns are the dims of each plane
    U = torch.cat([torch.complex(a, b), torch.complex(a, -b)], -1) / 2**0.5
    U = torch.cat([U, units[:, rotary.dim :].to(U.dtype)], -1)
    return U, torch.cat([plane, plane.conj(), rest], -1)
