"""Induction by K-composition: the second head's key is the token that the first head moved."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from circuits.ground_truth.scaffold import TwoLayerInduction, look_back, match, move, rest_on_bos
from circuits.model import GPT


@dataclass(frozen=True)
class Induction(TwoLayerInduction):
    """A B ... A -> B by K-composition, one head per layer; BOS is token 0; float64.

    The stream is [content V | previous V | out V | place P], one dim per token or position. L0H0
    attends one position back (score `sharpness`) and writes that token to `previous`. L1H0's query
    is the current token and its key is the previous token. Without a match it attends to BOS (score
    `rest` * `sharpness`), whose value is zero. `gain` is the logit of the predicted token.
    Positions are shortformer, so that no value holds one. ValueError if attention would blur.

    Losses are in nats. Scores are defined in `analyses`. Composition is ||AB|| / (||A|| ||B||).

    (Exercise 3 of the Transformer Circuit Exercises with one-hot positions:
    https://transformer-circuits.pub/2021/exercises/index.html)
    """

    edges = (
        ("embed", "L0H0.V"),
        ("embed", "L1H0.Q"),
        ("L0H0", "L1H0.K"),
        ("embed", "L1H0.V"),
        ("L1H0", "logits"),
    )
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."
    q_composition = v_composition = 0.0
    previous_token = copying = qk_positivity = 1.0
    moved_from_bos = 0.0
    "The norm of the vector that L1H0 moves from BOS: the value of BOS is zero."

    @cached_property
    def model(self) -> GPT:
        V, content, previous, out, place = self.d_vocab, 0, *(self.d_vocab * n for n in (1, 2, 3))
        model, token = self.copying_stream(d_head=max(V + 1, self.n_ctx)), torch.arange(V)
        back, seek = (block.attn for block in model.blocks)
        look_back(back, place, self.n_ctx, self.sharpness)
        move(back, token, read=content, write=previous)
        match(seek, token, query=content, key=previous, score=self.sharpness)
        move(seek, token, read=content, write=out)
        rest_on_bos(seek, V, score=self.rest * self.sharpness, at=V)
        return model

    loss_without_previous = loss_without_induction = TwoLayerInduction.loss_before_repeat
    """ln V: the loss after the repeat with L0H0 ablated and patterns not frozen, or with L1H0
    ablated."""
    loss_without_previous_patterns_kept = TwoLayerInduction.loss_after_repeat
    "The loss with L0H0 ablated and L1H0's pattern frozen: L0H0 acts only through this pattern."

    @property
    def k_composition(self) -> float:
        """||W_OV W_QK^T|| / (||W_OV|| ||W_QK||) = 1 / sqrt((1 + rest^2) V)."""
        return 1 / math.sqrt((1 + self.rest**2) * self.d_vocab)

    @property
    def ov_top1(self) -> float:
        """(V - 1) / V: the share of tokens whose own logit L1H0 raises most; BOS raises none."""
        return (self.d_vocab - 1) / self.d_vocab

    @property
    def qk_trace(self) -> float:
        """sharpness V: the score through L0H0 of each token with itself (algebra.K_composed_QK)."""
        return self.sharpness * self.d_vocab
