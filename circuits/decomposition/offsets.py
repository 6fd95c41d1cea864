"""Offsets: the distances that a head with rotary positions prefers, from its weights alone.

The kernel of a head is the score that it gives a source d positions back, in the mean over all
pairs of tokens. A score is linear in the query and in the key, so the mean is exact:

    kernel(d) = m_Q R(d) m_K^T / scale        m_Q, m_K: the mean query and key of all tokens

The variance over pairs of tokens is exact too, from the covariances S_Q and S_K:

    var(d) = (tr(S_Q R S_K R^T) + m_Q R S_K R^T m_Q^T + m_K R^T S_Q R m_K^T) / scale^2

A head whose kernel is largest at d = 1, by a margin that is large beside sqrt(var), attends to the
previous token whatever the tokens are. Norms are folded in as in `algebra`: their gain is in the
kernel, their 1/sigma is not. Deep layers are read straight from the embedding, as in `full_QK`;
with `mean` from the mean streams of a run. Mean tokens are not mean streams: kernels of deep layers
without `mean` can mislead.

The precision is at least single. ValueError for a model without rotary positions: see
`algebra.positional_QK`.
"""

import math
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition.algebra import reads
from circuits.decomposition.turns import rotary_of, turned_trace
from circuits.matrices import at_least_single
from circuits.model import GPT, Norm

PerHead = Float[Tensor, "layer head d_head"]
Means = Float[Tensor, "layer d_model"]
"The mean of the streams that the heads of each layer read, before their norm."


class Planes(NamedTuple):
    """The kernel of every head as a sum over planes, in the order of growing wavelengths:
    kernel(d) = rest + sum_a size_a cos(2 pi d / wavelength_a + phase_a)."""

    wavelength: Float[Tensor, " plane"]
    "The number of positions of one full turn."
    size: Float[Tensor, "layer head plane"]
    phase: Float[Tensor, "layer head plane"]
    "In radians. The plane prefers the offset -phase / (2 pi) wavelength."
    rest: Float[Tensor, "layer head"]
    "The part of the dims that are not turned."


def planes(model: GPT, *, mean: Means | None = None, biased: bool = False) -> Planes:
    """The size and phase of each plane of each head's kernel. With `biased` the biases of heads and
    norms are in the mean query and key, which is exact only without a norm."""
    rotary = rotary_of(model)
    q, k = (_mean_read(model, what, mean, biased) for what in ("Q", "K"))
    product = _complex(rotary.planes(q)) * _complex(rotary.planes(k)).conj()
    rest = (q * k)[..., rotary.dim :].sum(-1)
    return Planes(2 * math.pi / rotary.frequencies(q), product.abs(), product.angle(), rest)


def kernel(
    model: GPT, *, mean: Means | None = None, biased: bool = False
) -> Float[Tensor, "layer head offset"]:
    """The mean score of a source at each offset, 0 to n_ctx - 1, over all pairs of tokens."""
    rotary, found = rotary_of(model), planes(model, mean=mean, biased=biased)
    across, along = (found.size * f(found.phase) for f in (torch.cos, torch.sin))
    cos, sin = rotary.tables(across)
    return found.rest[..., None] + across @ cos.T - along @ sin.T


def variance(model: GPT) -> Float[Tensor, "layer head offset"]:
    """The variance of the score at each offset over all pairs of tokens."""
    q, k = (_mean_read(model, what, None, False) for what in ("Q", "K"))
    embedding = at_least_single(model.W_E)
    centred = embedding - embedding.mean(0)
    spread = centred.T @ centred / len(centred)
    S_Q, S_K = (
        einsum(W, spread, W, "layer head d e, d c, layer head c f -> layer head e f")
        for W in (at_least_single(reads(model, what)) for what in ("Q", "K"))
    )
    square_q, square_k = (x[..., :, None] * x[..., None, :] for x in (q, k))
    return turned_trace(model, S_Q, S_K + square_k) + turned_trace(model, square_q, S_K)


def _mean_read(model: GPT, what: str, mean: Means | None, biased: bool) -> PerHead:
    """The mean query (divided by the scale) or key of every head."""
    W = at_least_single(reads(model, what))  # type: ignore[arg-type]
    n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
    mean = at_least_single(model.W_E).mean(0).expand(n_layers, -1) if mean is None else mean
    if mean.shape != (n_layers, d_model):
        raise ValueError(f"mean must be the mean stream of each layer, [{n_layers} {d_model}], got "
                         f"{list(mean.shape)}")  # fmt: skip
    read = einsum(mean, W, "layer d, layer head d e -> layer head e")
    return read + _biases(model, what) if biased and model.cfg.bias and n_layers else read


def _biases(model: GPT, what: str) -> PerHead:
    """The bias of each head's query or key, with the bias of its norm."""
    scale = model.blocks[0].attn.scale if what == "Q" else 1.0
    found = []
    for block in model.blocks:
        b, W = getattr(block.attn, f"b_{what}"), getattr(block.attn, f"W_{what}")
        of_norm = block.ln1.b if isinstance(block.ln1, Norm) else None
        found.append(b if of_norm is None else b + of_norm @ W)
    return torch.stack(found) / scale


def _complex(pair: tuple[Tensor, Tensor]) -> Tensor:
    return torch.complex(*pair)
