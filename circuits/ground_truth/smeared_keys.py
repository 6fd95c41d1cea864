"""Induction in one layer: smeared keys replace the previous-token head."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from circuits.ground_truth.scaffold import RestingCircuit, match, move, rest_on_bos
from circuits.model import GPT

SMEARED = -1000.0
"A finite `alpha` whose sigmoid is exactly 0 in every float type."


@dataclass(frozen=True)
class SmearedInduction(RestingCircuit):
    """A B ... A -> B in one layer, by smeared keys, no positions; BOS is token 0; float64.

    The stream is [content V | out V], one dim per token. Query and key are both the token. With
    sigmoid(alpha) = 0 every position but the first has the key of the position before it, so the
    matching source is the token after the earlier copy (score `sharpness`). Without a match the
    head attends to the key of BOS (score `rest` * `sharpness`), which positions 0 and 1 have. The
    value of BOS is zero.

    The answers hold on BOS + R + R with no token twice in R. Without a match positions 0 and 1 get
    half of the attention each, so the first token of R gets half of `gain`. Losses are in nats.

    (Olsson et al. 2022, Argument 2,
    https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
    """

    edges = (("embed", "L0H0.Q"), ("embed", "L0H0.K"), ("embed", "L0H0.V"), ("L0H0", "logits"))
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."
    prefix_matching = 1.0
    rest_on_bos = 0.5
    "The attention to position 0 from a token without an earlier copy, for positions >= 1."
    rest_on_first = 0.5
    "The attention to position 1, which has the key of BOS, from such a token."
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
        """ln V, of the first token of R: BOS can attend only to itself."""
        return math.log(self.d_vocab)

    @property
    def loss_before_repeat(self) -> float:
        """ln(exp(gain / 2) + V - 1), of the other tokens of R: the first token of R has the logit
        `gain` / 2, and the right token has 0."""
        return self.gain / 2 + self.loss_of_first_again

    @property
    def loss_of_first_again(self) -> float:
        """ln(1 + (V - 1) exp(-gain / 2)), of the first token of the second R: its logit is `gain` /
        2."""
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
        """sharpness (V + rest): every token matches itself, and BOS scores `rest` more."""
        return self.sharpness * (self.d_vocab + self.rest)
