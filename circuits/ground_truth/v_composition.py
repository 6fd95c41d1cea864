"""A virtual head by V-composition: two heads that look one back move tokens two places together."""

import math
from dataclasses import dataclass

import torch

from circuits.ground_truth.scaffold import (
    Edges,
    check_gain,
    check_sharp,
    check_sizes,
    copying_stream,
    look_back,
)
from circuits.model import GPT


@dataclass(frozen=True, kw_only=True)
class VirtualHeadAnswers:
    """What is true of `virtual_head`; losses in nats, composition as ||AB|| / (||A|| ||B||)."""

    v_composition: float
    "||W_OV(L0H0) W_OV(L1H0)|| / (||W_OV(L0H0)|| ||W_OV(L1H0)||) = 1 / sqrt(V)."
    q_composition: float = 0.0
    k_composition: float = 0.0
    largest_logit_by_order: tuple[float, float, float]
    """max |logit| of the paths through exactly 0, 1, 2 heads with patterns frozen: (0, 0, gain), so
    that all there is comes from the virtual head."""
    loss_of_period_three: float
    "ln(1 + (V - 1) exp(-gain)), on A B C A B C ... where the token two back comes next."
    virtual_ov_trace: float
    "gain V: W_E W_OV(L0H0) W_OV(L1H0) W_U is `gain` times the identity."
    virtual_ov_positivity: float = 1.0
    own_ov: float = 0.0
    "Every entry of W_E W_OV W_U of either head: alone it says nothing."
    direct_path: float = 0.0
    "Every entry of W_E W_U."
    previous_token: float = 1.0
    "Of both heads."
    two_back: float = 1.0
    "Entries [i, i - 2] of the virtual head's pattern A(L1H0) A(L0H0), for i >= 2."
    edges: Edges = (
        ("embed", "L0H0.V"),
        ("L0H0", "L1H0.V"),
        ("L1H0", "logits"),
    )
    "What a change of tokens takes on its way to the logits, as (sender, receiver)."


def virtual_head(
    d_vocab: int = 20, n_ctx: int = 64, *, sharpness: float = 100.0, gain: float = 12.0
) -> GPT:
    """Predicts the token two back by V-composition, one head per layer; float64.

    The stream is [content V | previous V | out V | place n_ctx], one dim per token or position.
    Both heads attend one back (score `sharpness`). L0H0 moves `content` to `previous`, and L1H0
    moves `previous` to `out`: what was one back there is two back here. `gain` is its logit. The
    first two positions find token 0, which may be BOS, or what stands in its place.

    (Elhage et al. 2021, "Virtual attention heads",
    https://transformer-circuits.pub/2021/framework/index.html)
    """
    _check(d_vocab, n_ctx, sharpness, gain)
    V, content, previous, out, place = d_vocab, 0, d_vocab, 2 * d_vocab, 3 * d_vocab
    model = copying_stream(V, n_ctx, gain, d_head=max(V, n_ctx))
    token = torch.arange(V)
    for block, read, write in zip(model.blocks, (content, previous), (previous, out), strict=True):
        look_back(block.attn, place, n_ctx, sharpness)
        block.attn.W_V[0, read + token, token] = 1
        block.attn.W_O[0, token, write + token] = 1
    return model


def virtual_head_answers(
    d_vocab: int = 20, n_ctx: int = 64, *, sharpness: float = 100.0, gain: float = 12.0
) -> VirtualHeadAnswers:
    """The closed-form answers of `virtual_head` built with the same arguments."""
    _check(d_vocab, n_ctx, sharpness, gain)
    return VirtualHeadAnswers(
        v_composition=1 / math.sqrt(d_vocab),
        largest_logit_by_order=(0.0, 0.0, gain),
        loss_of_period_three=math.log1p((d_vocab - 1) * math.exp(-gain)),
        virtual_ov_trace=gain * d_vocab,
    )


def _check(d_vocab: int, n_ctx: int, sharpness: float, gain: float) -> None:
    check_sizes(d_vocab, n_ctx, least=(2, 3))
    check_gain(gain)
    check_sharp(sharpness, "sharpness")
