"""Heads with other factors of the same QK and OV circuits, as in TransformerLens."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.matrices import svd
from circuits.model import GPT, Attention


@torch.no_grad()
def refactor_heads(model: GPT) -> None:
    """Replace the factors of each head by an SVD of their product, in place.

    W_V and W_O become U S and V^T: z is then as large as the head's output. W_Q and W_K, with their
    biases, become U sqrt(S) and V sqrt(S). b_V is folded into b_O. Patterns and logits stay equal.
    """
    for block in model.blocks:
        attn = block.attn
        if attn.b_V is not None:
            attn.b_O += einsum(attn.b_V, attn.W_O, "head e, head e d -> d")
            attn.b_V.zero_()
        U, S, Vt = svd(attn.W_V, attn.W_O)
        _fill(attn.W_V, U * S[:, None])
        _fill(attn.W_O.mT, Vt.mT)
        U, S, Vt = svd(_with_bias(attn, "Q"), _with_bias(attn, "K").mT)
        for letter, factor in (("Q", U), ("K", Vt.mT)):
            _take(attn, letter, factor * S.sqrt()[:, None])


def _with_bias(attn: Attention, letter: str) -> Float[Tensor, "head rows d_head"]:
    """W with b as one more row, for a stream with one more dim of value 1."""
    W, b = getattr(attn, f"W_{letter}"), getattr(attn, f"b_{letter}")
    return W if b is None else torch.cat([W, b[:, None]], 1)


def _take(attn: Attention, letter: str, factor: Float[Tensor, "head rows inner"]) -> None:
    W, b = getattr(attn, f"W_{letter}"), getattr(attn, f"b_{letter}")
    _fill(W, factor[:, : W.shape[1]])
    if b is not None:
        _fill(b, factor[:, -1])


def _fill(weight: Float[Tensor, "*rows d_head"], factor: Float[Tensor, "*rows inner"]) -> None:
    """Write a factor into a weight; a weight that is wider is 0 in its other columns."""
    weight.zero_()[..., : factor.shape[-1]] = factor
