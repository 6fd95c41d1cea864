"""Hand-built circuits whose answers are known in closed form, to test detectors on.

`induction` is two attention heads that K-compose, after exercise 3 of the Transformer Circuit
Exercises (https://transformer-circuits.pub/2021/exercises/index.html).
"""

import math
from dataclasses import dataclass

import torch

from circuits.config import GPTConfig
from circuits.model import GPT


@dataclass(frozen=True, kw_only=True)
class InductionAnswers:
    """What is true of `induction`, from its weights by hand; losses in nats, scores as analyses
    define them."""

    loss_before_repeat: float
    "ln V: no token can be told from another."
    loss_after_repeat: float
    "ln(1 + (V - 1) exp(-gain)): the right token has logit `gain`, the others 0."
    k_composition: float
    "||W_OV W_QK^T|| / (||W_OV|| ||W_QK||) = 1 / sqrt((1 + rest^2) V)."
    ov_trace: float
    "gain (V - 1): each token but BOS raises its own logit by `gain`."
    previous_token: float = 1.0
    prefix_matching: float = 1.0
    rest_on_bos: float = 1.0
    "Attention to BOS of a token that was not seen before."
    ov_positivity: float = 1.0
    qk_positivity: float = 1.0


def induction(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> GPT:
    """A B ... A -> B by K-composition, one head per layer; BOS is token 0; float64.

    The stream is [content V | previous V | out V | position n_ctx], one dim per token or position.
    L0H0 attends one back (score `sharpness`) and writes the token it finds to `previous`. L1H0's
    query is the current token and its key the previous one; where nothing matches it rests on BOS
    (score `rest` * `sharpness`), whose value is zero. `gain` is the logit of the token found.
    """
    V, content, previous, out, place = d_vocab, 0, d_vocab, 2 * d_vocab, 3 * d_vocab
    d_head = max(V + 1, n_ctx)
    cfg = GPTConfig(
        n_layers=2,
        d_model=3 * V + n_ctx,
        n_heads=1,
        d_head=d_head,
        d_vocab=V,
        n_ctx=n_ctx,
        normalization_type=None,
        positional_embedding_type="shortformer",
        bias=False,
    )
    model = GPT(cfg).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    token, pos, star = torch.arange(V), torch.arange(n_ctx), V
    sharp = sharpness * math.sqrt(d_head)
    model.embed.W_E[token, content + token] = 1
    model.pos_embed.W_pos[pos, place + pos] = 1
    model.unembed.W_U[out + token, token] = gain

    back = model.blocks[0].attn
    back.W_Q[0, place + pos, (pos - 1).clamp(min=0)] = sharp
    back.W_K[0, place + pos, pos] = 1
    back.W_V[0, content + token, token] = 1
    back.W_O[0, token, previous + token] = 1

    match = model.blocks[1].attn
    match.W_Q[0, content + token, token] = sharp
    match.W_Q[0, content + token, star] = rest * sharp
    match.W_K[0, previous + token, token] = 1
    match.W_K[0, content, star] = 1  # BOS is where to rest
    match.W_V[0, content + token[1:], token[1:]] = 1
    match.W_O[0, token, out + token] = 1
    return model


def induction_answers(
    d_vocab: int = 20, *, gain: float = 12.0, rest: float = 0.5
) -> InductionAnswers:
    """The closed-form answers of `induction` built with the same arguments."""
    return InductionAnswers(
        loss_before_repeat=math.log(d_vocab),
        loss_after_repeat=math.log1p((d_vocab - 1) * math.exp(-gain)),
        k_composition=1 / math.sqrt((1 + rest**2) * d_vocab),
        ov_trace=gain * (d_vocab - 1),
    )
