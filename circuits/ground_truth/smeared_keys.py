"""Induction in one layer: smeared keys do the previous-token head's work."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from circuits.ground_truth.scaffold import RestingCircuit, match, move, rest_on_bos
from circuits.model import GPT

SMEARED = -1000.0
"An `alpha` whose sigmoid is exactly 0 in every float type, and finite as -inf is not."


@dataclass(frozen=True)
class SmearedInduction(RestingCircuit):
    """A B ... A -> B in one layer, by smeared keys, no positions; BOS is token 0; float64.

    The stream is [content V | out V], one dim per token. Query and key are both the token, but with
    sigmoid(alpha) = 0 every key but the first is that of the position before: the source that
    matches is the token after the earlier copy (score `sharpness`). Where nothing matches, the head
    rests at the key of BOS (score `rest` * `sharpness`), and that key is at positions 0 and 1. The
    value of BOS is zero.

    The answers hold on BOS + R + R with no token twice in R. The head rests on positions 0 and 1
    alike, so that half of the first token of R is said wherever nothing matches. Losses are in
    nats.

    (Olsson et al. 2022, Argument 2,
    https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
    """

    edges = (("embed", "L0H0.Q"), ("embed", "L0H0.K"), ("embed", "L0H0.V"), ("L0H0", "logits"))
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."
    prefix_matching = 1.0
    rest_on_bos = 0.5
    "Attention to position 0 of a token that was not seen before, from position 1 on."
    rest_on_first = 0.5
    "Its attention to position 1, whose key is that of BOS."
    ov_positivity = 1.0

    @cached_property
    def model(self) -> GPT:
        V, content, out = self.d_vocab, 0, self.d_vocab
        sizes = {"n_layers": 1, "d_model": 2 * V, "d_head": V + 1, "smeared_keys": True}
        model = self.one_hot(out=out, positional_embedding_type="none", **sizes)
        head, token = model.blocks[0].attn, torch.arange(V)
        head.alpha.fill_(SMEARED)
        match(head, token, query=content, key=content, score=self.sharpness)
        move(head, token, read=content, write=out)
        rest_on_bos(head, V, score=self.rest * self.sharpness, at=V)
        return model

    @property
    def loss_of_first(self) -> float:
        """ln V, of the first token of R: BOS has only itself to rest on."""
        return math.log(self.d_vocab)

    @property
    def loss_before_repeat(self) -> float:
        """ln(exp(gain / 2) + V - 1), of the other tokens of R: the first token of R has half of
        `gain`, and the right one 0."""
        return self.gain / 2 + self.loss_of_first_again

    @property
    def loss_of_first_again(self) -> float:
        """ln(1 + (V - 1) exp(-gain / 2)), of the first token of the second R: it has half of
        `gain`."""
        return self.loss_at(self.gain / 2)

    @property
    def loss_after_repeat(self) -> float:
        """ln(1 + (V - 1) exp(-gain)), of the other tokens of the second R."""
        return self.loss_at(self.gain)

    @property
    def ov_trace(self) -> float:
        """gain (V - 1): each token but BOS raises its own logit by `gain`."""
        return self.gain * (self.d_vocab - 1)

    @property
    def qk_trace(self) -> float:
        """sharpness (V + rest): every token matches itself, and BOS also rests on itself."""
        return self.sharpness * (self.d_vocab + self.rest)
