"""Induction by K-composition: the key of the second head is what the first one moved there."""

import math
from dataclasses import dataclass

import torch

from circuits.ground_truth.scaffold import Edges, check_induction, copying_stream, look_back
from circuits.model import GPT


@dataclass(frozen=True, kw_only=True)
class InductionAnswers:
    """What is true of `induction`, from its weights by hand; losses in nats, scores as analyses
    define them, composition as ||AB|| / (||A|| ||B||)."""

    loss_before_repeat: float
    "ln V: no token can be told from another."
    loss_after_repeat: float
    "ln(1 + (V - 1) exp(-gain)): the right token has logit `gain`, the others 0."
    loss_by_order: tuple[float, float, float]
    """After the repeat, of all paths through at most 0, 1, 2 heads with patterns frozen: all that
    patterns cannot do is done by one head, and no virtual head takes part."""
    loss_without_previous: float
    "After the repeat, L0H0 silenced and L1H0 left to look elsewhere: ln V."
    loss_without_previous_patterns_kept: float
    "The same with L1H0's pattern kept: nothing is lost, for L0H0 only tells it where to look."
    loss_without_induction: float
    "After the repeat, L1H0 silenced, patterns kept or not: ln V."
    k_composition: float
    "||W_OV W_QK^T|| / (||W_OV|| ||W_QK||) = 1 / sqrt((1 + rest^2) V)."
    q_composition: float = 0.0
    v_composition: float = 0.0
    ov_trace: float
    "gain (V - 1): each token but BOS raises its own logit by `gain`."
    ov_top1: float
    "(V - 1) / V: share of tokens whose own logit L1H0 raises most; BOS raises none."
    qk_trace: float
    "sharpness V: the score through L0H0 of each token with itself; see algebra.K_composed_QK."
    previous_token: float = 1.0
    prefix_matching: float = 1.0
    copying: float = 1.0
    rest_on_bos: float = 1.0
    "Attention to BOS of a token that was not seen before."
    moved_from_bos: float = 0.0
    "What is moved by it: the value of BOS is zero."
    ov_positivity: float = 1.0
    qk_positivity: float = 1.0
    direct_path: float = 0.0
    "Every entry of W_E W_U."
    virtual_head: float = 0.0
    "Every entry of W_E W_OV(L0H0) W_OV(L1H0) W_U."
    edges: Edges = (
        ("embed", "L0H0.V"),
        ("embed", "L1H0.Q"),
        ("L0H0", "L1H0.K"),
        ("embed", "L1H0.V"),
        ("L1H0", "logits"),
    )
    "What a change of tokens takes on its way to the logits, as (sender, receiver)."


def induction(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> GPT:
    """A B ... A -> B by K-composition, one head per layer; BOS is token 0; float64.

    The stream is [content V | previous V | out V | place n_ctx], one dim per token or position.
    L0H0 attends one back (score `sharpness`) and writes the token it finds to `previous`. L1H0's
    query is the current token and its key the previous one; where nothing matches it rests on BOS
    (score `rest` * `sharpness`), whose value is zero. `gain` is the logit of the token found.
    Positions are shortformer: no value can carry one. ValueError where scores would blur.

    (Exercise 3 of the Transformer Circuit Exercises with one-hot positions:
    https://transformer-circuits.pub/2021/exercises/index.html)
    """
    check_induction(d_vocab, n_ctx, sharpness=sharpness, gain=gain, rest=rest)
    V, content, previous, out, place = d_vocab, 0, d_vocab, 2 * d_vocab, 3 * d_vocab
    model = copying_stream(V, n_ctx, gain, d_head=max(V + 1, n_ctx))
    token, star = torch.arange(V), V

    back = model.blocks[0].attn
    look_back(back, place, n_ctx, sharpness)
    back.W_V[0, content + token, token] = 1
    back.W_O[0, token, previous + token] = 1

    match = model.blocks[1].attn
    sharp = sharpness * match.scale  # which scores are divided by
    match.W_Q[0, content + token, token] = sharp
    match.W_Q[0, content + token, star] = rest * sharp
    match.W_K[0, previous + token, token] = 1
    match.W_K[0, content, star] = 1  # BOS is where to rest
    match.W_V[0, content + token[1:], token[1:]] = 1  # and moves nothing
    match.W_O[0, token, out + token] = 1
    return model


def induction_answers(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 100.0,
    gain: float = 12.0,
    rest: float = 0.5,
) -> InductionAnswers:
    """The closed-form answers of `induction` built with the same arguments."""
    check_induction(d_vocab, n_ctx, sharpness=sharpness, gain=gain, rest=rest)
    before, after = math.log(d_vocab), math.log1p((d_vocab - 1) * math.exp(-gain))
    return InductionAnswers(
        loss_before_repeat=before,
        loss_after_repeat=after,
        loss_by_order=(before, after, after),
        loss_without_previous=before,
        loss_without_previous_patterns_kept=after,
        loss_without_induction=before,
        k_composition=1 / math.sqrt((1 + rest**2) * d_vocab),
        ov_trace=gain * (d_vocab - 1),
        ov_top1=(d_vocab - 1) / d_vocab,
        qk_trace=sharpness * d_vocab,
    )
