"""Induction by Q-composition: the first head says where the token was, the second looks one on."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from circuits.ground_truth.scaffold import TwoLayerInduction, match, move, rest_on_bos
from circuits.model import GPT


@dataclass(frozen=True)
class PointerInduction(TwoLayerInduction):
    """A B ... A -> B by Q-composition, one head per layer; BOS is token 0; float64.

    The stream is [content V | position P | pointer P | out V], one dim per token or position, and
    positions are in it, so that values can carry them. L0H0 attends to the earlier copy of the
    token (a match scores `sharpness`, and the position takes that back where it is the token's
    own), or rests on BOS; it writes the position of the copy to `pointer`. L1H0's query is the
    position after the pointer, and with no pointer it rests on BOS. Both rest at score `rest` *
    `sharpness`, and BOS moves nothing. `gain` is the logit of the token found.

    A token with k earlier copies splits its pointer into k parts that score `sharpness` / k: it is
    followed only while 1 / k > `rest`. The answers are for k = 1, where no token has been said more
    than once before. The default vocabulary is large enough that the default prompts of `analyses`
    say no token more than twice. Losses are in nats, composition is ||AB|| / (||A|| ||B||).

    (Exercise 2 of the Transformer Circuit Exercises with one-hot positions:
    https://transformer-circuits.pub/2021/exercises/index.html)
    """

    d_vocab: int = 32

    edges = (
        ("embed", "L0H0.Q"),
        ("embed", "L0H0.K"),
        ("L0H0", "L1H0.Q"),
        ("embed", "L1H0.V"),
        ("L1H0", "logits"),
    )
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."
    k_composition = v_composition = 0.0
    duplicate_token = 1.0

    @cached_property
    def model(self) -> GPT:
        V, P = self.d_vocab, self.n_ctx
        content, position, pointer, out = 0, V, V + P, V + 2 * P
        sizes = {"n_layers": 2, "d_model": 2 * V + 2 * P, "d_head": V + P + 1}
        model = self.one_hot(out=out, place=position, positional_embedding_type="standard", **sizes)
        token, pos = torch.arange(V), torch.arange(P)
        same, after = (block.attn for block in model.blocks)
        match(same, token, query=content, key=content, score=self.sharpness)
        match(same, pos, query=position, key=position, score=-self.sharpness, at=V)  # not itself
        move(same, pos, read=position, write=pointer)
        same.W_V[0, position] = 0  # BOS, at position 0, is never pointed to
        after.W_Q[0, pointer + pos[:-1], pos[1:]] = self.sharpness * after.scale
        after.W_K[0, position + pos, pos] = 1
        move(after, token, read=content, write=out)
        for head in (same, after):
            rest_on_bos(head, V, score=self.rest * self.sharpness, at=V + P)
        return model

    @property
    def q_composition(self) -> float:
        """||W_OV W_QK|| / (||W_OV|| ||W_QK||) = sqrt(P - 2) / (sqrt(P - 1) sqrt(P - 1 + rest^2 V)):
        of P - 1 pointers all but the last have a place to point to."""
        V, P = self.d_vocab, self.n_ctx
        return math.sqrt((P - 2) / ((P - 1) * (P - 1 + self.rest**2 * V)))
