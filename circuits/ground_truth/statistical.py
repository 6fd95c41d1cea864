"""A statistical induction head: the tokens that followed this token in context, and how often."""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.ground_truth.scaffold import Circuit, look_back, match, move
from circuits.model import GPT


@dataclass(frozen=True)
class StatisticalInduction(Circuit):
    """Logits in proportion to the in-context bigram frequencies, one head per layer; float64.

    The stream is [content V | previous V | out V | place P], one dim per token or position. L0H0 is
    a softmax over relative positions, sharp on one back. L1H0's query is the current token, its key
    the previous one (score `sharpness`), and it moves the tokens it finds to `out`. It attends
    equally to all tokens that followed the current one, and equally to all tokens there are where
    none followed. No token is special, and nothing rests.

    This is the nearest GPT to the minimal model of Edelman et al. 2024 at its optimum. There e_i is
    the one-hot token; the first layer is u_j = sum_k softmax_k(v_(j-k)) e_k with v at lag 1; the
    second is linear, logits_i = sum_(j<=i) (e_i W u_j) e_j with W = c times the identity. The first
    layer is the same, exactly. A GPT has no linear attention: its softmax divides by the number of
    matches, so that logits are frequencies and not counts, and it falls back to all tokens where
    the linear head is silent. (https://arxiv.org/abs/2402.11004)
    """

    d_vocab: int = 3

    @cached_property
    def model(self) -> GPT:
        V, content, previous, out, place = self.d_vocab, 0, *(self.d_vocab * n for n in (1, 2, 3))
        model, token = self.copying_stream(d_head=max(V, self.n_ctx)), torch.arange(V)
        back, seek = (block.attn for block in model.blocks)
        look_back(back, place, self.n_ctx, self.sharpness)
        move(back, token, read=content, write=previous)
        match(seek, token, query=content, key=previous, score=self.sharpness)
        move(seek, token, read=content, write=out)
        return model

    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """gain * frequencies."""
        return self.gain * self.frequencies(tokens)

    def frequencies(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Of the tokens that have followed the current one so far; of all tokens so far where none
        has. The first token counts as following itself, for it has no other before it."""
        followed = _followed(tokens)
        so_far = torch.ones_like(followed).tril()
        counted = torch.where(followed.any(-1, keepdim=True), followed, so_far).double()
        counts = counted @ F.one_hot(tokens, self.d_vocab).double()
        return counts / counts.sum(-1, keepdim=True)

    def matches(self, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """How often the current token has been followed: Edelman's linear head multiplies by it."""
        return _followed(tokens).sum(-1)


def _followed(tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch dest src"]:
    """Whether the source follows an earlier copy of the destination's token."""
    before = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
    return (tokens[:, :, None] == before[:, None, :]).tril()
