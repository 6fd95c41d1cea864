"""A statistical induction head: what has followed this token in context, and how often."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from circuits.ground_truth.scaffold import (
    check_gain,
    check_sharp,
    check_sizes,
    copying_stream,
    look_back,
)
from circuits.model import GPT


@dataclass(frozen=True, kw_only=True)
class StatisticalInductionAnswers:
    """What is true of `statistical_induction` on the tokens that were asked about."""

    logits: Float[Tensor, "batch pos d_vocab"]
    "gain * frequencies."
    frequencies: Float[Tensor, "batch pos d_vocab"]
    """Of the tokens that have followed the current one so far; of all tokens so far where none has.
    The first token counts as following itself, for it has no other before it."""
    matches: Int[Tensor, "batch pos"]
    "How often the current token has been followed: what Edelman's linear head multiplies by."


def statistical_induction(
    d_vocab: int = 3, n_ctx: int = 64, *, sharpness: float = 100.0, gain: float = 12.0
) -> GPT:
    """Logits in proportion to the in-context bigram frequencies, one head per layer; float64.

    The stream is [content V | previous V | out V | place n_ctx], one dim per token or position.
    L0H0 is a softmax over relative positions, sharp on one back. L1H0's query is the current token,
    its key the previous one (score `sharpness`), and it moves what it finds to `out`: attention is
    equal over all that followed, and equal over all there is where nothing did. No token is
    special, and nothing rests.

    This is the nearest GPT to the minimal model of Edelman et al. 2024 at its optimum. There e_i is
    the one-hot token; the first layer is u_j = sum_k softmax_k(v_(j-k)) e_k with v at lag 1; the
    second is linear, logits_i = sum_(j<=i) (e_i W u_j) e_j with W = c times the identity. The first
    layer is the same, exactly. Linear attention a GPT does not have: its softmax divides by the
    number of matches, so that logits are frequencies and not counts, and it falls back to all
    tokens where the linear head is silent. (https://arxiv.org/abs/2402.11004)
    """
    _check(d_vocab, n_ctx, sharpness, gain)
    V, content, previous, out, place = d_vocab, 0, d_vocab, 2 * d_vocab, 3 * d_vocab
    model = copying_stream(V, n_ctx, gain, d_head=max(V, n_ctx))
    token = torch.arange(V)

    back = model.blocks[0].attn
    look_back(back, place, n_ctx, sharpness)
    back.W_V[0, content + token, token] = 1
    back.W_O[0, token, previous + token] = 1

    match = model.blocks[1].attn
    match.W_Q[0, content + token, token] = sharpness * match.scale
    match.W_K[0, previous + token, token] = 1
    match.W_V[0, content + token, token] = 1
    match.W_O[0, token, out + token] = 1
    return model


def statistical_induction_answers(
    tokens: Int[Tensor, "batch pos"],
    d_vocab: int = 3,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
) -> StatisticalInductionAnswers:
    """The answers of `statistical_induction` built with the same arguments, by counting."""
    _check(d_vocab, n_ctx, sharpness, gain)
    before = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
    followed = (tokens[:, :, None] == before[:, None, :]).tril()  # batch dest src
    matches = followed.sum(-1)
    so_far = torch.ones_like(followed).tril()
    counted = torch.where(matches[..., None] > 0, followed, so_far).double()
    counts = counted @ F.one_hot(tokens, d_vocab).double()
    frequencies = counts / counts.sum(-1, keepdim=True)
    return StatisticalInductionAnswers(
        logits=gain * frequencies, frequencies=frequencies, matches=matches
    )


def _check(d_vocab: int, n_ctx: int, sharpness: float, gain: float) -> None:
    check_sizes(d_vocab, n_ctx, least=(2, 2))
    check_gain(gain)
    check_sharp(sharpness, "sharpness")
