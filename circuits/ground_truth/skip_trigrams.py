"""The skip-trigram bug: one head cannot tell keep ... in mind from keep ... in bay."""

import math
from dataclasses import dataclass

import torch

from circuits.ground_truth.scaffold import Edges, blank, check_gain, check_rest, check_sizes
from circuits.model import GPT

BOS, KEEP, IN, AT, MIND, BAY = range(6)
"The tokens of `skip_trigram_bug` that mean something: keep ... in mind, keep ... at bay."

Trigrams = tuple[tuple[int, int, int], ...]
"(source, destination, out): source ... destination -> out."


@dataclass(frozen=True, kw_only=True)
class SkipTrigramAnswers:
    """What is true of `skip_trigram_bug`; losses in nats."""

    meant: Trigrams = ((KEEP, IN, MIND), (KEEP, AT, BAY))
    bugs: Trigrams = ((KEEP, IN, BAY), (KEEP, AT, MIND))
    "One OV circuit serves both destinations, so these are said as loudly as what is meant."
    logit: float
    "`gain`, of the out token of every trigram above; every other logit is 0."
    loss: float
    "ln(2 + (V - 2) exp(-gain)), of the out token of every trigram above."
    loss_elsewhere: float
    "ln V, at any other destination, and at these with no `keep` before them."
    score: float
    "`sharpness`: the QK circuit's entry [in, keep] and [at, keep]."
    rest_score: float
    "`rest` * `sharpness`: the QK circuit's entry [any, BOS]."
    ov_positivity: float = 0.0
    "It moves a token to others and never to itself."
    edges: Edges = (
        ("embed", "L0H0.Q"),
        ("embed", "L0H0.K"),
        ("embed", "L0H0.V"),
        ("L0H0", "logits"),
    )
    "What a change of tokens takes on its way to the logits, as (sender, receiver)."


def skip_trigram_bug(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 60.0,
    gain: float = 5.0,
    rest: float = 0.5,
) -> GPT:
    """keep ... in -> mind and keep ... at -> bay in one head, which then also says keep ... in ->
    bay and keep ... at -> mind; one layer, no positions; BOS is token 0; float64.

    The stream is [content V | out V], one dim per token. The QK circuit takes `in` and `at` to
    `keep` (score `sharpness`), and all else to BOS (score `rest` * `sharpness`), whose value is
    zero. The OV circuit takes `keep` to `mind` and `bay` (logit `gain`). Neither sees the other:
    the trigram source-destination-out is a product, and the bug cannot be told from the meant.

    (Elhage et al. 2021, "Skip-trigram bugs",
    https://transformer-circuits.pub/2021/framework/index.html)
    """
    _check(d_vocab, n_ctx, sharpness, gain, rest)
    content, out = 0, d_vocab
    model = blank(
        n_layers=1,
        d_model=2 * d_vocab,
        n_heads=1,
        d_head=2,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
        positional_embedding_type="none",
    )
    token, keep, star = torch.arange(d_vocab), 0, 1
    model.embed.W_E[token, content + token] = 1
    model.unembed.W_U[out + token, token] = gain

    head = model.blocks[0].attn
    sharp = sharpness * head.scale  # which scores are divided by
    head.W_Q[0, [content + IN, content + AT], keep] = sharp
    head.W_Q[0, content + token, star] = rest * sharp
    head.W_K[0, content + KEEP, keep] = 1
    head.W_K[0, content + BOS, star] = 1
    head.W_V[0, content + KEEP, keep] = 1
    head.W_O[0, keep, [out + MIND, out + BAY]] = 1
    return model


def skip_trigram_bug_answers(
    d_vocab: int = 20,
    n_ctx: int = 64,
    *,
    sharpness: float = 60.0,
    gain: float = 5.0,
    rest: float = 0.5,
) -> SkipTrigramAnswers:
    """The closed-form answers of `skip_trigram_bug` built with the same arguments."""
    _check(d_vocab, n_ctx, sharpness, gain, rest)
    return SkipTrigramAnswers(
        logit=gain,
        loss=math.log(2 + (d_vocab - 2) * math.exp(-gain)),
        loss_elsewhere=math.log(d_vocab),
        score=sharpness,
        rest_score=rest * sharpness,
    )


def _check(d_vocab: int, n_ctx: int, sharpness: float, gain: float, rest: float) -> None:
    check_sizes(d_vocab, n_ctx, least=(6, 3))
    check_gain(gain)
    check_rest(sharpness, rest)
