"""Induction by Q-composition: one head finds the earlier copy, the next attends one after it."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from circuits.ground_truth.scaffold import TwoLayerInduction, match, move, rest_on_bos
from circuits.model import GPT


@dataclass(frozen=True)
class PointerInduction(TwoLayerInduction):
    """A B ... A -> B by Q-composition, one head per layer; BOS is token 0; float64.

    The stream is [content V | position P | pointer P | out V], one dim per token or position.
    Positions are in the stream, so that values can hold them. L0H0 attends to the earlier copy of
    the token: a match scores `sharpness`, and the token's own position `sharpness` less, so 0.
    L0H0 writes the position of the copy to `pointer`. L1H0's query is the position after the
    pointer. A head without a match attends to BOS (score `rest` * `sharpness`), and BOS moves
    nothing. `gain` is the logit of the predicted token.

    With k earlier copies the pointer has k parts, and each scores `sharpness` / k: L1H0 follows
    them only if 1 / k > `rest`. The answers hold for k = 1. The default vocabulary is large, so
    that no token comes more than twice in the default prompts of `analyses`. Losses are in nats.
    Composition is ||AB|| / (||A|| ||B||).

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
        of P - 1 pointers only the last has no position after it."""
        V, P = self.d_vocab, self.n_ctx
        return math.sqrt((P - 2) / ((P - 1) * (P - 1 + self.rest**2 * V)))
