"""Induction by K-composition: the key of the second head is the token that the first one moved."""

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
    attends one back (score `sharpness`) and writes the token it finds to `previous`. L1H0's query
    is the current token and its key the previous one; where nothing matches it rests on BOS (score
    `rest` * `sharpness`), whose value is zero. `gain` is the logit of the token found. Positions
    are shortformer: no value can carry one. ValueError where scores would blur.

    Losses are in nats, scores as the analyses define them, composition is ||AB|| / (||A|| ||B||).

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
    "The size of the vector that this attention moves: the value of BOS is zero."

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
    """ln V: the loss after the repeat, L0H0 silenced and L1H0 left to look elsewhere; or L1H0
    silenced, patterns kept or not."""
    loss_without_previous_patterns_kept = TwoLayerInduction.loss_after_repeat
    "The loss with L0H0 silenced and L1H0's pattern kept: L0H0 only tells L1H0 where to look."

    @property
    def k_composition(self) -> float:
        """||W_OV W_QK^T|| / (||W_OV|| ||W_QK||) = 1 / sqrt((1 + rest^2) V)."""
        return 1 / math.sqrt((1 + self.rest**2) * self.d_vocab)

    @property
    def ov_top1(self) -> float:
        """(V - 1) / V: share of tokens whose own logit L1H0 raises most; BOS raises none."""
        return (self.d_vocab - 1) / self.d_vocab

    @property
    def qk_trace(self) -> float:
        """sharpness V: the score through L0H0 of each token with itself (algebra.K_composed_QK)."""
        return self.sharpness * self.d_vocab
