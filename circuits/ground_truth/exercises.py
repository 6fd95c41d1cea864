"""The three Transformer Circuit Exercises solved, with d_model 16 and rotating positions.

https://transformer-circuits.pub/2021/exercises/index.html

The vector u(i) of position i holds (cos ai, sin ai) for two speeds a: the hands of two clocks. A
rotation moves a position by one: u(i) R(a) = u(i + 1), in row vectors. The exercises fix d_model 16
and d_head 4. They leave open the embedding and unembedding, the speeds and the other sizes. Each
docstring lists the choices made here after "Chosen".
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
"""The turns of each clock over the context. The most similar positions are then 4 apart, at 45
degrees on both clocks."""
GAP = 2 - math.sqrt(2)
"The smallest difference u(i) . u(i) - u(i) . u(j) for j other than i; u(i) . u(i) is 2."


@dataclass(frozen=True)
class VirtualHeadExercise(Circuit):
    """Exercise 1: two previous-token heads copy 7 dims from one back and 1 dim from two back;
    float64.

    L0H0 copies dims 0-3 to 8-11. L1H0 copies dims 4-6 to 12-14. It also copies dim 8, which holds
    dim 0 of the previous token, to 15. Chosen: 8 tokens with BOS the first; token t is dim t - 1,
    and BOS is dim 7, which no head reads. W_U maps dims 8-14 to tokens 1-7, and dim 15 to token 1.
    Positions are shortformer, in dims 12-15. Only L1H0 writes to these dims.

    `gain` is the logit of the token one back. Token 1 has it also where it is two back. A copy is
    (dim read, dim written).
    """

    d_vocab: int = field(default=8, init=False)
    n_ctx: int = field(default=N_CTX, init=False)

    one_token_copy = (*((dim, 8 + dim) for dim in range(4)), (4, 12), (5, 13), (6, 14), (8, 15))
    "The ones of W_OV(L0H0) + W_OV(L1H0): 7 dims of the previous token, and the copy of dim 8."
    two_token_copy = ((0, 15),)
    "The one of W_OV(L0H0) W_OV(L1H0): 1 dim of the token two back."
    v_composition = 1 / 4
    "||W_OV W_OV|| / (||W_OV|| ||W_OV||) = 1 / (2 * 2)."
    previous_token = 1.0
    "The previous-token score of both heads."

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
    """Induction on 16 tokens, the corners of a 4-dim cube (`corners`); BOS is the first.

    The answers hold for a token with one earlier copy. Losses are in nats. A composition score is
    ||AB|| / (||A|| ||B||).
    """

    d_vocab: int = field(default=16, init=False)
    n_ctx: int = field(default=N_CTX, init=False)

    v_composition = 0.0
    prefix_matching = 1.0

    @property
    def loss_after_repeat(self) -> float:
        """4 ln(1 + exp(-gain / 2)): a token has the logit gain (1 - k / 2) if it differs from the
        right token in k of 4 signs."""
        return 4 * math.log1p(math.exp(-self.gain / 2))

    def cube_model(self, *, out: int, **fields: Any) -> GPT:
        """A blank model with W_E that writes the cube to dims 0-3 and W_U that reads it from the 4
        dims that start at `out`."""
        model = self.blank(n_layers=2, d_model=16, **fields)
        model.embed.W_E[:, :4] = corners()
        model.unembed.W_U[out : out + 4] = self.gain * corners().T
        return model


@dataclass(frozen=True)
class PointerInductionExercise(_CubeExercise):
    """Exercise 2: induction by pointer arithmetic; float64.

    L0H0's query and key are content and position, with a minus sign at the position: it attends to
    an earlier copy of its token and not to its own position. It writes the position of the copy to
    `pointer`. L1H0's query is this position plus one: it attends to the token after the copy.
    Chosen: the stream is [content 4 | position 4 | pointer 4 | out 4], and the 16 tokens are the
    corners of a cube (`corners`); BOS is the first. d_head is 8, as (d) asks. (e) copies the 8
    largest dims of the position: here it has only 4. Content has 10 times the weight of position.

    The exercise does not say where L0H0 attends without a copy: here it is the most similar token.
    The answers hold for a token with one earlier copy. Losses are in nats.
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

    L0H0 attends one position back and writes the content of that token to `previous`. L1H0's query
    is `content` and its key is `previous`. Chosen: the stream is [content 4 | previous 4 | out 4 |
    place 4], and the 16 tokens are the corners of a cube (`corners`), BOS the first. Positions are
    shortformer, because the exercise wants no positions in values. d_head is 4.

    The exercise does not say where L1H0 attends without a match: here it is the most similar token.
    The answers hold for a token with one earlier copy. Losses are in nats.
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
    """A unit vector of four signs times 1/2 for each of 16 tokens; token 0 has only plus signs. Two
    vectors that differ in k signs have the dot product 1 - k / 2; float64."""
    return torch.tensor(list(product((0.5, -0.5), repeat=4)), dtype=torch.float64)


def clocks(n: int) -> Float[Tensor, "pos 4"]:
    """u(i) = (cos ai, sin ai) for the speed a of each clock, for `n` positions i; float64."""
    angle = torch.outer(torch.arange(n, dtype=torch.float64), _speeds())
    return torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(1)


def turn(attn: Attention, steps: int, *, read: int, against: int, sharpness: float) -> None:
    """Make head 0 attend `steps` after the position that it reads: query u(i) R(steps a), key u(j).

    The query reads 4 dims of the stream that start at `read`, the key 4 dims that start at
    `against`.
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
