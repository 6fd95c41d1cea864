"""The three Transformer Circuit Exercises solved: d_model 16, and positions on clocks.

https://transformer-circuits.pub/2021/exercises/index.html

A position is the hands of two clocks, (cos ai, sin ai) for two speeds a, as in the exercises. To
look one position back or on is to turn the hands: u(i) R(a) = u(i + 1), in row vectors. The
exercises leave open how tokens are embedded, what is unembedded, the speeds and all sizes but
d_model 16 and d_head 4; what is chosen here is said in each docstring.
"""

import math
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ground_truth.scaffold import blank, check_gain, check_sharp
from circuits.model import GPT, Attention

N_CTX = 32
TURNS = (1, 7)
"""Turns of each clock over the context. No two positions then agree better than those 4 apart: 45
degrees off on both clocks."""
GAP = 2 - math.sqrt(2)
"How far u(i) . u(j) stays below u(i) . u(i) = 2 for j other than i."


@dataclass(frozen=True, kw_only=True)
class VirtualHeadExerciseAnswers:
    """What is true of `exercise_virtual_head`; dims of the stream as (read, written)."""

    one_token_copy: tuple[tuple[int, int], ...]
    "The ones of W_OV(L0H0) + W_OV(L1H0): 7 dims of the previous token, and one on its way."
    two_token_copy: tuple[tuple[int, int], ...] = ((0, 15),)
    "The one of W_OV(L0H0) W_OV(L1H0): 1 dim of the token two back."
    v_composition: float = 1 / 4
    "||W_OV W_OV|| / (||W_OV|| ||W_OV||) = 1 / (2 * 2)."
    logit: float
    "`gain`: of the token one back, and of token 1 where it is two back."
    previous_token: float = 1.0
    "Of both heads."


def exercise_virtual_head(*, sharpness: float = 100.0, gain: float = 12.0) -> GPT:
    """Exercise 1: two previous-token heads, 7/8 of which copy one back and 1/8 two back; float64.

    L0H0 copies dims 0-3 to 8-11. L1H0 copies dims 4-6 to 12-14, and dim 8, which holds dim 0 of the
    token before, to 15. Chosen: 8 tokens, BOS the first; token t is dim t - 1 and BOS is dim 7,
    which nothing reads; W_U turns 8-11 and 12-14 into the tokens they came from, 15 into token 1.
    Positions are shortformer, in dims 12-15, where nothing is written before L1H0 has looked.
    """
    check_gain(gain)
    check_sharp(GAP * sharpness, "(2 - sqrt 2) * sharpness")
    model = blank(
        n_layers=2,
        d_model=16,
        n_heads=1,
        d_head=4,
        d_vocab=8,
        n_ctx=N_CTX,
        positional_embedding_type="shortformer",
    )
    token, four, three, place = torch.arange(8), torch.arange(4), torch.arange(3), 12
    model.embed.W_E[token, (token - 1) % 8] = 1
    model.pos_embed.W_pos[:, place:] = clocks(N_CTX)
    model.unembed.W_U[8 + torch.arange(8), [1, 2, 3, 4, 5, 6, 7, 1]] = gain
    for block in model.blocks:
        turn(block.attn, -1, read=place, against=place, sharpness=sharpness)

    first, second = (block.attn for block in model.blocks)
    first.W_V[0, four, four] = 1
    first.W_O[0, four, 8 + four] = 1
    second.W_V[0, 4 + three, three] = 1
    second.W_V[0, 8, 3] = 1
    second.W_O[0, four, 12 + four] = 1
    return model


def exercise_virtual_head_answers(
    *, sharpness: float = 100.0, gain: float = 12.0
) -> VirtualHeadExerciseAnswers:
    """The closed-form answers of `exercise_virtual_head` built with the same arguments."""
    check_gain(gain)
    check_sharp(GAP * sharpness, "(2 - sqrt 2) * sharpness")
    first = tuple((dim, 8 + dim) for dim in range(4))
    second = ((4, 12), (5, 13), (6, 14), (8, 15))
    return VirtualHeadExerciseAnswers(one_token_copy=first + second, logit=gain)


@dataclass(frozen=True, kw_only=True)
class InductionExerciseAnswers:
    """What is true of the exercises' induction heads on a token with one earlier copy; losses in
    nats, composition as ||AB|| / (||A|| ||B||)."""

    loss_after_repeat: float
    """4 ln(1 + exp(-gain / 2)): a token that differs in k of 4 signs has logit gain (1 - k / 2)."""
    q_composition: float
    k_composition: float
    "1 / sqrt(4) for the way the heads compose: all 4 dims one writes the other reads; else 0."
    v_composition: float = 0.0
    prefix_matching: float = 1.0


def exercise_pointer_induction(*, sharpness: float = 100.0, gain: float = 12.0) -> GPT:
    """Exercise 2: induction by pointer arithmetic; float64.

    L0H0's query and key are content and position, the position with the opposite sign: it attends
    to the same token but not to itself. It writes the position it finds to `pointer`, and L1H0,
    whose query is the pointer one on, attends to what came after. Chosen: the stream is [content 4
    | position 4 | pointer 4 | out 4] and the 16 tokens are the corners of a cube (`corners`); BOS
    is the first. d_head is 8, which (d) asks for. (e) copies the 8 largest dims of the position:
    here 4 are all there are. Content weighs 10 times what position does.

    Where nothing matches, the exercise says nothing and it attends to what is most alike.
    """
    check_gain(gain)
    check_sharp(GAP * sharpness, "(2 - sqrt 2) * sharpness")
    content, position, pointer, out = 0, 4, 8, 12
    model = _cube_model(d_head=8, out=out, gain=gain, positional_embedding_type="standard")
    model.pos_embed.W_pos[:, position : position + 4] = clocks(N_CTX)
    four = torch.arange(4)

    same = model.blocks[0].attn
    same.W_Q[0, content + four, four] = 10 * sharpness * same.scale
    same.W_Q[0, position + four, 4 + four] = -sharpness * same.scale
    same.W_K[0, content + four, four] = 1
    same.W_K[0, position + four, 4 + four] = 1
    same.W_V[0, position + four, four] = 1
    same.W_O[0, four, pointer + four] = 1

    after = model.blocks[1].attn
    turn(after, +1, read=pointer, against=position, sharpness=sharpness)
    after.W_V[0, content + four, four] = 1
    after.W_O[0, four, out + four] = 1
    return model


def exercise_induction(*, sharpness: float = 100.0, gain: float = 12.0) -> GPT:
    """Exercise 3: induction by K-composition; float64.

    L0H0 looks one back and writes the content it finds to `previous`; L1H0's query is the content
    and its key `previous`. Chosen: the stream is [content 4 | previous 4 | out 4 | place 4], the 16
    tokens are the corners of a cube (`corners`), BOS the first, and positions are shortformer, as
    the exercise wants them kept from W_V. d_head is 4.

    Where nothing matches, the exercise says nothing and it attends to what is most alike.
    """
    check_gain(gain)
    check_sharp(sharpness / 2, "sharpness / 2")
    content, previous, out, place = 0, 4, 8, 12
    model = _cube_model(d_head=4, out=out, gain=gain, positional_embedding_type="shortformer")
    model.pos_embed.W_pos[:, place:] = clocks(N_CTX)
    four = torch.arange(4)

    back = model.blocks[0].attn
    turn(back, -1, read=place, against=place, sharpness=sharpness)
    back.W_V[0, content + four, four] = 1
    back.W_O[0, four, previous + four] = 1

    match = model.blocks[1].attn
    match.W_Q[0, content + four, four] = sharpness * match.scale
    match.W_K[0, previous + four, four] = 1
    match.W_V[0, content + four, four] = 1
    match.W_O[0, four, out + four] = 1
    return model


def exercise_pointer_induction_answers(
    *, sharpness: float = 100.0, gain: float = 12.0
) -> InductionExerciseAnswers:
    """The closed-form answers of `exercise_pointer_induction` built with the same arguments."""
    check_gain(gain)
    check_sharp(GAP * sharpness, "(2 - sqrt 2) * sharpness")
    return InductionExerciseAnswers(
        loss_after_repeat=4 * math.log1p(math.exp(-gain / 2)),
        q_composition=1 / 2,
        k_composition=0.0,
    )


def exercise_induction_answers(
    *, sharpness: float = 100.0, gain: float = 12.0
) -> InductionExerciseAnswers:
    """The closed-form answers of `exercise_induction` built with the same arguments."""
    check_gain(gain)
    check_sharp(sharpness / 2, "sharpness / 2")
    return InductionExerciseAnswers(
        loss_after_repeat=4 * math.log1p(math.exp(-gain / 2)),
        q_composition=0.0,
        k_composition=1 / 2,
    )


def corners() -> Float[Tensor, "d_vocab 4"]:
    """Four signs times 1/2 for each of 16 tokens, all + first: unit vectors, any two of which have
    the product 1 - k / 2 if they differ in k signs; float64."""
    return torch.tensor(list(product((0.5, -0.5), repeat=4)), dtype=torch.float64)


def clocks(n: int) -> Float[Tensor, "pos 4"]:
    """u(i) = (cos ai, sin ai) for the speed a of each clock, for `n` positions i; float64."""
    angle = torch.outer(torch.arange(n, dtype=torch.float64), _speeds())
    return torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(1)


def turn(attn: Attention, steps: int, *, read: int, against: int, sharpness: float) -> None:
    """Make head 0 look `steps` on from the position it reads: query u(i) R(steps a), key u(j).

    The query reads 4 dims of the stream from `read`, the key 4 from `against`.
    """
    angle, cos, sin = steps * _speeds(), torch.tensor([0, 2]), torch.tensor([1, 3])
    R = torch.zeros(4, 4, dtype=torch.float64)
    R[cos, cos] = R[sin, sin] = angle.cos()
    R[cos, sin], R[sin, cos] = angle.sin(), -angle.sin()
    four = torch.arange(4)
    attn.W_Q[0, read : read + 4, :4] = sharpness * attn.scale * R
    attn.W_K[0, against + four, four] = 1


def _speeds() -> Float[Tensor, "2"]:
    return 2 * math.pi * torch.tensor(TURNS, dtype=torch.float64) / N_CTX


def _cube_model(*, d_head: int, out: int, gain: float, positional_embedding_type: str) -> GPT:
    model = blank(
        n_layers=2,
        d_model=16,
        n_heads=1,
        d_head=d_head,
        d_vocab=16,
        n_ctx=N_CTX,
        positional_embedding_type=positional_embedding_type,
    )
    model.embed.W_E[:, :4] = corners()
    model.unembed.W_U[out : out + 4] = gain * corners().T
    return model
