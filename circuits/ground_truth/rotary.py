"""Induction with rotary positions: no position is ever in the stream."""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.ground_truth.k_composition import Induction
from circuits.ground_truth.scaffold import Circuit, match, move
from circuits.model import GPT, Rotary

PLANES, BASE = 4, 10.0
ONE, CONTENT = 0, 1
"The dims of the stream: the constant 1, then the token, and after it previous and out."


@dataclass(frozen=True)
class RotaryInduction(Circuit):
    """A B ... A -> B by K-composition with rotary positions, one head per layer; BOS is token 0;
    float64, no norm, no biases.

    The stream is [one | content V | previous V | out V]. The first 8 dims of q and k are four
    planes with w = 1, 0.56, 0.32, 0.18 radians per position, and the other V + 1 dims are not
    turned. L0H0's query is the unit vector u in each plane for every token, and its key is u R(1):
    its scores are `sharpness` sum_a cos(w_a (i - j - 1)), largest one position back. It writes that
    token to `previous`. L1H0 compares content with `previous` in the dims that are not turned, so
    that it finds a match at any distance. BOS offers it the score `rest` * `sharpness`, and the
    value zero. `gain` is the logit of the predicted token.

    Every answer is exact for any sharpness, also where attention is blurred.
    """

    n_ctx: int = 64
    _: KW_ONLY
    sharpness: float = 60.0
    rest: float = 0.25

    least = (3, 4)
    edges = Induction.edges
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."

    def check_sharpness(self) -> None:
        """ValueError unless sharpness and rest are finite and above 0: formulas hold for blurred
        attention too."""
        for name in ("sharpness", "rest"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a number above 0")

    @cached_property
    def model(self) -> GPT:
        V, turned = self.d_vocab, 2 * PLANES
        previous, out, token = CONTENT + V, CONTENT + 2 * V, torch.arange(self.d_vocab)
        model = self.blank(
            n_layers=2, d_model=1 + 3 * V, d_head=turned + V + 1, rotary_dim=turned,
            rotary_base=BASE, positional_embedding_type="rotary",
        )  # fmt: skip
        model.embed.W_E[token, CONTENT + token] = model.embed.W_E[token, ONE] = 1
        model.unembed.W_U[out + token, token] = self.gain
        back, seek = (block.attn for block in model.blocks)
        unit = (torch.arange(back.W_Q.shape[2]) < PLANES).to(back.W_Q)  # u: 1 in each plane
        back.W_Q[0, ONE] = self.sharpness * back.scale * unit
        back.W_K[0, ONE] = unit @ Rotary(model.cfg).double().matrix(torch.tensor(1))
        move(back, token, read=CONTENT, write=previous)
        match(seek, token, query=CONTENT, key=previous, score=self.sharpness, at=turned)
        move(seek, token, read=CONTENT, write=out)
        seek.W_Q[0, ONE, -1] = self.rest * self.sharpness * seek.scale
        seek.W_K[0, CONTENT, -1] = 1  # BOS
        seek.W_V[0, CONTENT] = 0
        return model

    @property
    def kernel(self) -> Float[Tensor, " n_ctx"]:
        """`sharpness` sum_a cos(w_a (d - 1)): L0H0's score at each offset d, for any two tokens."""
        back = torch.arange(self.n_ctx, dtype=torch.float64)[:, None] - 1
        w = BASE ** -(torch.arange(PLANES, dtype=torch.float64) / PLANES)
        return self.sharpness * (w * back).cos().sum(-1)

    def previous_pattern(self, n: int) -> Float[Tensor, "dest src"]:
        """The pattern of L0H0 on any `n` tokens: the softmax of its kernel over the sources."""
        offset = torch.arange(n)[:, None] - torch.arange(n)
        return self.kernel[offset.clamp(min=0)].masked_fill(offset < 0, -math.inf).softmax(-1)

    def induction_pattern(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch _ _"]:
        """The pattern of L1H0, [batch dest src]: the softmax of `sharpness` times sum_m A_jm [t_m =
        t_i], and rest if t_j is BOS, with A the pattern of L0H0."""
        one_hot = torch.eye(self.d_vocab, dtype=torch.float64)[tokens]
        found = one_hot @ (self.previous_pattern(tokens.shape[1]) @ one_hot).mT  # batch dest src
        scores = self.sharpness * (found + self.rest * (tokens == 0)[:, None, :])
        future = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return scores.masked_fill(future, -math.inf).softmax(-1)

    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """`gain` times the attention of L1H0 to each token but BOS."""
        one_hot = torch.eye(self.d_vocab, dtype=torch.float64)[tokens]
        one_hot[..., 0] = 0
        return self.gain * self.induction_pattern(tokens) @ one_hot

    @property
    def k_composition(self) -> float:
        """||W_OV W_QK^T|| / (||W_OV|| ||W_QK||) = 1 / sqrt(V + rest^2), at every offset and in the
        mean: the dims that match are not turned."""
        return 1 / math.sqrt(self.d_vocab + self.rest**2)

    @property
    def qk_trace(self) -> float:
        """sharpness V: the score through L0H0 of each token with itself, at every offset."""
        return self.sharpness * self.d_vocab
