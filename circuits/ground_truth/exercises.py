"""The three Transformer Circuit Exercises solved: d_model 16, and positions on clocks.

https://transformer-circuits.pub/2021/exercises/index.html

A position is the hands of two clocks, (cos ai, sin ai) for two speeds a, as in the exercises. To
look one position back or on is to turn the hands: u(i) R(a) = u(i + 1), in row vectors. The
exercises leave open how tokens are embedded and unembedded, the speeds and all sizes but d_model 16
and d_head 4; each docstring says which of these were chosen here.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ground_truth.scaffold import Circuit, match, move
from circuits.model import GPT, Attention

N_CTX = 32
TURNS = (1, 7)
"""Turns of each clock over the context. No two positions then agree better than those 4 apart: 45
degrees off on both clocks."""
GAP = 2 - math.sqrt(2)
"The distance of u(i) . u(j), for j other than i, below u(i) . u(i) = 2."


@dataclass(frozen=True)
class VirtualHeadExercise(Circuit):
    """Exercise 1: two previous-token heads, 7/8 of which copy one back and 1/8 two back; float64.

    L0H0 copies dims 0-3 to 8-11. L1H0 copies dims 4-6 to 12-14, and dim 8, which holds dim 0 of the
    token before, to 15. Chosen: 8 tokens, BOS the first; token t is dim t - 1 and BOS is dim 7,
    which nothing reads; W_U turns 8-11 and 12-14 into the tokens they came from, 15 into token 1.
    Positions are shortformer, in dims 12-15, where nothing is written before L1H0 has looked.

    `gain` is the logit of the token one back, and of token 1 where it is two back. Copies are
    (dim read, dim written) of the stream.
    """

    d_vocab: int = field(default=8, init=False)
    n_ctx: int = field(default=N_CTX, init=False)

    one_token_copy = (*((dim, 8 + dim) for dim in range(4)), (4, 12), (5, 13), (6, 14), (8, 15))
    "The ones of W_OV(L0H0) + W_OV(L1H0): 7 dims of the previous token, and one on its way."
    two_token_copy = ((0, 15),)
    "The one of W_OV(L0H0) W_OV(L1H0): 1 dim of the token two back."
    v_composition = 1 / 4
    "||W_OV W_OV|| / (||W_OV|| ||W_OV||) = 1 / (2 * 2)."
    previous_token = 1.0
    "Of both heads."

    @property
    def margin(self) -> tuple[float, str]:
        return GAP * self.sharpness, "(2 - sqrt 2) * sharpness"

    @cached_property
    def model(self) -> GPT:
        token, four, three, place = torch.arange(8), torch.arange(4), torch.arange(3), 12
        model = self.blank(
            n_layers=2, d_model=16, d_head=4, positional_embedding_type="shortformer"
        )
        model.embed.W_E[token, (token - 1) % 8] = 1
        model.pos_embed.W_pos[:, place:] = clocks(N_CTX)
        model.unembed.W_U[8 + token, [1, 2, 3, 4, 5, 6, 7, 1]] = self.gain
        first, second = (block.attn for block in model.blocks)
        for head in (first, second):
            turn(head, -1, read=place, against=place, sharpness=self.sharpness)
        move(first, four, read=0, write=8)
        move(second, three, read=4, write=12)
        second.W_V[0, 8, 3] = second.W_O[0, 3, 15] = 1
        return model


@dataclass(frozen=True)
class _CubeExercise(Circuit):
    """Induction of 16 tokens that are the corners of a cube (`corners`), BOS the first.

    The answers hold for a token with one earlier copy. Losses are in nats, composition is
    ||AB|| / (||A|| ||B||).
    """

    d_vocab: int = field(default=16, init=False)
    n_ctx: int = field(default=N_CTX, init=False)

    v_composition = 0.0
    prefix_matching = 1.0

    @property
    def loss_after_repeat(self) -> float:
        """4 ln(1 + exp(-gain / 2)): a token that differs in k of 4 signs has logit
        gain (1 - k / 2)."""
        return 4 * math.log1p(math.exp(-self.gain / 2))

    def cube_model(self, *, out: int, **fields: Any) -> GPT:
        """The model with the cube embedded in dims 0-3 and read off 4 dims from `out` on."""
        model = self.blank(n_layers=2, d_model=16, **fields)
        model.embed.W_E[:, :4] = corners()
        model.unembed.W_U[out : out + 4] = self.gain * corners().T
        return model


@dataclass(frozen=True)
class PointerInductionExercise(_CubeExercise):
    """Exercise 2: induction by pointer arithmetic; float64.

    L0H0's query and key are content and position, the position with the opposite sign: it attends
    to the same token but not to itself. It writes the position it finds to `pointer`, and L1H0,
    whose query is the pointer one on, attends to the token that came after. Chosen: the stream is
    [content 4 | position 4 | pointer 4 | out 4] and the 16 tokens are the corners of a cube
    (`corners`); BOS is the first. d_head is 8, which (d) asks for. (e) copies the 8 largest dims of
    the position: here there are only 4. Content weighs 10 times as much as position.

    Where nothing matches, the exercise asks for nothing: L0H0 attends to the token most alike. The
    answers hold for a token with one earlier copy. Losses are in nats.
    """

    q_composition = 1 / 2
    "1 / sqrt(4): L1H0 reads all 4 dims that L0H0 writes."
    k_composition = 0.0

    @property
    def margin(self) -> tuple[float, str]:
        return GAP * self.sharpness, "(2 - sqrt 2) * sharpness"

    @cached_property
    def model(self) -> GPT:
        content, position, pointer, out = 0, 4, 8, 12
        model = self.cube_model(d_head=8, out=out, positional_embedding_type="standard")
        model.pos_embed.W_pos[:, position : position + 4] = clocks(N_CTX)
        same, after = (block.attn for block in model.blocks)
        four = torch.arange(4)
        match(same, four, query=content, key=content, score=10 * self.sharpness)
        match(same, four, query=position, key=position, score=-self.sharpness, at=4)
        move(same, four, read=position, write=pointer)
        turn(after, +1, read=pointer, against=position, sharpness=self.sharpness)
        move(after, four, read=content, write=out)
        return model


@dataclass(frozen=True)
class InductionExercise(_CubeExercise):
    """Exercise 3: induction by K-composition; float64.

    L0H0 looks one back and writes the content it finds to `previous`; L1H0's query is the content
    and its key `previous`. Chosen: the stream is [content 4 | previous 4 | out 4 | place 4], the 16
    tokens are the corners of a cube (`corners`), BOS the first, and positions are shortformer, as
    the exercise wants them kept from W_V. d_head is 4.

    Where nothing matches, the exercise asks for nothing: L1H0 attends to the token most alike. The
    answers hold for a token with one earlier copy. Losses are in nats.
    """

    q_composition = 0.0
    k_composition = 1 / 2
    "1 / sqrt(4): L1H0 reads all 4 dims that L0H0 writes."

    @property
    def margin(self) -> tuple[float, str]:
        return self.sharpness / 2, "sharpness / 2"

    @cached_property
    def model(self) -> GPT:
        content, previous, out, place = 0, 4, 8, 12
        model = self.cube_model(d_head=4, out=out, positional_embedding_type="shortformer")
        model.pos_embed.W_pos[:, place:] = clocks(N_CTX)
        back, seek = (block.attn for block in model.blocks)
        four = torch.arange(4)
        turn(back, -1, read=place, against=place, sharpness=self.sharpness)
        move(back, four, read=content, write=previous)
        match(seek, four, query=content, key=previous, score=self.sharpness)
        move(seek, four, read=content, write=out)
        return model


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
