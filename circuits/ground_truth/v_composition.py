"""A virtual head by V-composition: two previous-token heads move a token by two positions."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch

from circuits.ground_truth.scaffold import Circuit, look_back, move
from circuits.model import GPT


@dataclass(frozen=True)
class VirtualHead(Circuit):
    """Predicts the token two back by V-composition, one head per layer; float64.

    The stream is [content V | previous V | out V | place P], one dim per token or position. Both
    heads attend one position back (score `sharpness`). L0H0 moves `content` to `previous`, and L1H0
    moves `previous` to `out`: `out` holds the token two back. `gain` is its logit. Positions 0 and
    1 predict the token of position 0.

    Losses are in nats. Composition is ||AB|| / (||A|| ||B||).

    (Elhage et al. 2021, "Virtual attention heads",
    https://transformer-circuits.pub/2021/framework/index.html)
    """

    least = (2, 3)
    edges = (("embed", "L0H0.V"), ("L0H0", "L1H0.V"), ("L1H0", "logits"))
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."
    q_composition = k_composition = 0.0
    virtual_ov_positivity = 1.0
    own_ov = 0.0
    "Every entry of W_E W_OV W_U of either head: one head alone changes no logit."
    direct_path = 0.0
    "Every entry of W_E W_U."
    previous_token = 1.0
    "The previous-token score of both heads."
    two_back = 1.0
    "Entries [i, i - 2] of the virtual head's pattern A(L1H0) A(L0H0), for i >= 2."

    @cached_property
    def model(self) -> GPT:
        V = self.d_vocab
        model = self.copying_stream(d_head=max(V, self.n_ctx))
        for layer, block in enumerate(model.blocks):
            look_back(block.attn, 3 * V, self.n_ctx, self.sharpness)
            move(block.attn, torch.arange(V), read=layer * V, write=(layer + 1) * V)
        return model

    @property
    def v_composition(self) -> float:
        """||W_OV(L0H0) W_OV(L1H0)|| / (||W_OV(L0H0)|| ||W_OV(L1H0)||) = 1 / sqrt(V)."""
        return 1 / math.sqrt(self.d_vocab)

    @property
    def largest_logit_by_order(self) -> tuple[float, float, float]:
        """max |logit| of the paths through exactly 0, 1 and 2 heads with frozen patterns: (0, 0,
        gain). Every logit comes from the virtual head."""
        return 0.0, 0.0, self.gain

    @property
    def loss_of_period_three(self) -> float:
        """ln(1 + (V - 1) exp(-gain)), on A B C A B C ..., where the token two back comes next."""
        return self.loss_at(self.gain)

    @property
    def virtual_ov_trace(self) -> float:
        """gain V: W_E W_OV(L0H0) W_OV(L1H0) W_U is `gain` times the identity."""
        return self.gain * self.d_vocab
