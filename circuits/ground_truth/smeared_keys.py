"""Induction in one layer: smeared keys do the previous-token head's work."""

import math
from dataclasses import dataclass

import torch

from circuits.ground_truth.scaffold import Edges, blank, check_induction
from circuits.model import GPT

SMEARED = -1000.0
"An `alpha` whose sigmoid is exactly 0 in every float type, and finite as -inf is not."


@dataclass(frozen=True, kw_only=True)
class SmearedInductionAnswers:
    """What is true of `smeared_induction` on BOS + R + R with no token twice in R; losses in nats.

    The BOS flag smears onto position 1, so that rest is not on position 0 alone and half of the
    first token of R is said wherever nothing matches.
    """

    loss_of_first: float
    "ln V, of the first token of R: BOS has only itself to rest on."
    loss_before_repeat: float
    "ln(exp(gain / 2) + V - 1), of the other tokens of R: position 1 says its own token at half."
    loss_of_first_again: float
    "ln(1 + (V - 1) exp(-gain / 2)), of the first token of the second R: said at half."
    loss_after_repeat: float
    "ln(1 + (V - 1) exp(-gain)), of the other tokens of the second R."
    ov_trace: float
    "gain (V - 1)."
    qk_trace: float
    "sharpness (V + rest): every token matches itself, and BOS also rests on itself."
    prefix_matching: float = 1.0
    rest_on_bos: float = 0.5
    "Attention to position 0 of a token that was not seen before, from position 1 on."
    rest_on_first: float = 0.5
    "Its attention to position 1, where the flag of BOS has smeared to."
    ov_positivity: float = 1.0
    edges: Edges = (
        ("embed", "L0H0.Q"),
        ("embed", "L0H0.K"),
        ("embed", "L0H0.V"),
        ("L0H0", "logits"),
    )
    "What a change of tokens takes on its way to the logits, as (sender, receiver)."


def smeared_induction(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> GPT:
    """A B ... A -> B in one layer, by smeared keys, no positions; BOS is token 0; float64.

    The stream is [content V | out V], one dim per token. Query and key are both the token, but with
    sigmoid(alpha) = 0 every key but the first is that of the position before: what matches is the
    token after the earlier copy (score `sharpness`). Where nothing matches it rests at the key of
    BOS (score `rest` * `sharpness`), and that is at positions 0 and 1. The value of BOS is zero.

    (Olsson et al. 2022, Argument 2,
    https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
    """
    check_induction(d_vocab, n_ctx, sharpness=sharpness, gain=gain, rest=rest)
    content, out = 0, d_vocab
    model = blank(
        n_layers=1,
        d_model=2 * d_vocab,
        n_heads=1,
        d_head=d_vocab + 1,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
        positional_embedding_type="none",
        smeared_keys=True,
    )
    token, star = torch.arange(d_vocab), d_vocab
    model.embed.W_E[token, content + token] = 1
    model.unembed.W_U[out + token, token] = gain

    head = model.blocks[0].attn
    sharp = sharpness * head.scale  # which scores are divided by
    head.alpha.fill_(SMEARED)
    head.W_Q[0, content + token, token] = sharp
    head.W_Q[0, content + token, star] = rest * sharp
    head.W_K[0, content + token, token] = 1
    head.W_K[0, content, star] = 1  # BOS is where to rest
    head.W_V[0, content + token[1:], token[1:]] = 1
    head.W_O[0, token, out + token] = 1
    return model


def smeared_induction_answers(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> SmearedInductionAnswers:
    """The closed-form answers of `smeared_induction` built with the same arguments."""
    check_induction(d_vocab, n_ctx, sharpness=sharpness, gain=gain, rest=rest)
    others = d_vocab - 1
    first_again = math.log1p(others * math.exp(-gain / 2))
    return SmearedInductionAnswers(
        loss_of_first=math.log(d_vocab),
        loss_before_repeat=gain / 2 + first_again,
        loss_of_first_again=first_again,
        loss_after_repeat=math.log1p(others * math.exp(-gain)),
        ov_trace=gain * others,
        qk_trace=sharpness * (d_vocab + rest),
    )
