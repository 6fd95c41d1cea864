"""Induction by Q-composition: the first head says where the token was, the second looks one on."""

import math
from dataclasses import dataclass

import torch

from circuits.ground_truth.scaffold import Edges, blank, check_induction
from circuits.model import GPT


@dataclass(frozen=True, kw_only=True)
class PointerInductionAnswers:
    """What is true of `pointer_induction` where no token has been said more than once before;
    losses in nats, composition as ||AB|| / (||A|| ||B||)."""

    loss_before_repeat: float
    "ln V: no token can be told from another."
    loss_after_repeat: float
    "ln(1 + (V - 1) exp(-gain))."
    loss_by_order: tuple[float, float, float]
    "After the repeat, of all paths through at most 0, 1, 2 heads with patterns frozen."
    q_composition: float
    """||W_OV W_QK|| / (||W_OV|| ||W_QK||) = sqrt(P - 2) / (sqrt(P - 1) sqrt(P - 1 + rest^2 V)) with
    P = n_ctx: of P - 1 pointers all but the last have a place to point to."""
    k_composition: float = 0.0
    v_composition: float = 0.0
    ov_trace: float
    "gain (V - 1)."
    duplicate_token: float = 1.0
    prefix_matching: float = 1.0
    rest_on_bos: float = 1.0
    "Attention to BOS, of either head, of a token that was not seen before."
    ov_positivity: float = 1.0
    direct_path: float = 0.0
    "Every entry of W_E W_U."
    virtual_head: float = 0.0
    "Every entry of W_E W_OV(L0H0) W_OV(L1H0) W_U."
    edges: Edges = (
        ("embed", "L0H0.Q"),
        ("embed", "L0H0.K"),
        ("L0H0", "L1H0.Q"),
        ("embed", "L1H0.V"),
        ("L1H0", "logits"),
    )
    "What a change of tokens takes on its way to the logits, as (sender, receiver)."


def pointer_induction(
    d_vocab: int = 32,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> GPT:
    """A B ... A -> B by Q-composition, one head per layer; BOS is token 0; float64.

    The stream is [content V | position P | pointer P | out V], one dim per token or position, and
    positions are in it, so that values can carry them. L0H0 attends to the earlier copy of the
    token (a match scores `sharpness`, and the position takes that back where it is the token's
    own), or rests on BOS; it writes where that is to `pointer`. L1H0's query is the position after
    the pointer, and with no pointer it rests on BOS. Both rest at score `rest` * `sharpness`, and
    BOS moves nothing. `gain` is the logit of the token found.

    A token with k earlier copies splits its pointer into k parts that score `sharpness` / k: it is
    followed only while 1 / k > `rest`, so answers are for k = 1. The default vocabulary is large
    enough that the default prompts of `analyses` say no token more than twice.

    (Exercise 2 of the Transformer Circuit Exercises with one-hot positions:
    https://transformer-circuits.pub/2021/exercises/index.html)
    """
    check_induction(d_vocab, n_ctx, sharpness=sharpness, gain=gain, rest=rest)
    V, P = d_vocab, n_ctx
    content, position, pointer, out = 0, V, V + P, V + 2 * P
    model = blank(
        n_layers=2,
        d_model=2 * V + 2 * P,
        n_heads=1,
        d_head=V + P + 1,
        d_vocab=V,
        n_ctx=P,
        positional_embedding_type="standard",
    )
    token, pos, star = torch.arange(V), torch.arange(P), V + P
    model.embed.W_E[token, content + token] = 1
    model.pos_embed.W_pos[pos, position + pos] = 1
    model.unembed.W_U[out + token, token] = gain

    same = model.blocks[0].attn
    sharp = sharpness * same.scale  # which scores are divided by
    same.W_Q[0, content + token, token] = sharp
    same.W_Q[0, position + pos, V + pos] = -sharp  # but not itself
    same.W_Q[0, content + token, star] = rest * sharp
    same.W_K[0, content + token, token] = 1
    same.W_K[0, position + pos, V + pos] = 1
    same.W_K[0, content, star] = 1  # BOS is where to rest
    same.W_V[0, position + pos[1:], pos[1:]] = 1  # and is never pointed to
    same.W_O[0, pos, pointer + pos] = 1

    after = model.blocks[1].attn
    after.W_Q[0, pointer + pos[:-1], pos[:-1] + 1] = sharp
    after.W_Q[0, content + token, star] = rest * sharp
    after.W_K[0, position + pos, pos] = 1
    after.W_K[0, content, star] = 1
    after.W_V[0, content + token[1:], token[1:]] = 1
    after.W_O[0, token, out + token] = 1
    return model


def pointer_induction_answers(
    d_vocab: int = 32,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> PointerInductionAnswers:
    """The closed-form answers of `pointer_induction` built with the same arguments."""
    check_induction(d_vocab, n_ctx, sharpness=sharpness, gain=gain, rest=rest)
    V, P = d_vocab, n_ctx
    before, after = math.log(V), math.log1p((V - 1) * math.exp(-gain))
    return PointerInductionAnswers(
        loss_before_repeat=before,
        loss_after_repeat=after,
        loss_by_order=(before, after, after),
        q_composition=math.sqrt((P - 2) / ((P - 1) * (P - 1 + rest**2 * V))),
        ov_trace=gain * (V - 1),
    )
