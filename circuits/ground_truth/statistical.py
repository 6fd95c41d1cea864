"""A statistical induction head: it predicts the bigram frequencies of the context."""

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

    The stream is [content V | previous V | out V | place P], one dim per token or position. L0H0
    attends one position back. L1H0's query is the current token and its key is the previous token
    (score `sharpness`). It moves the tokens that it attends to to `out`. It attends equally to all
    tokens that followed the current token. If none followed, it attends equally to all tokens so
    far. There is no BOS.

    This GPT is the nearest to the minimal model of Edelman et al. 2024 at its optimum. There e_i is
    the one-hot token. The first layer is u_j = sum_k softmax_k(v_(j-k)) e_k with v at lag 1: L0H0
    equals it. The second layer is linear: logits_i = sum_(j<=i) (e_i W u_j) e_j with W = c times
    the identity. L1H0 has a softmax, which divides by the number of matches: logits are frequencies
    and not counts. Without a match the linear layer gives 0, and L1H0 the mean of all tokens.
    (https://arxiv.org/abs/2402.11004)
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
        """The frequencies of the tokens that followed the current token so far; if none followed,
        the frequencies of all tokens so far. The first token counts as following itself."""
        followed = _followed(tokens)
        so_far = torch.ones_like(followed).tril()
        counted = torch.where(followed.any(-1, keepdim=True), followed, so_far).double()
        counts = counted @ F.one_hot(tokens, self.d_vocab).double()
        return counts / counts.sum(-1, keepdim=True)

    def matches(self, tokens: Int[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
        """The number of times that a token followed the current token. The logits of Edelman's
        linear model are larger by this factor."""
        return _followed(tokens).sum(-1)


def _followed(tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch dest src"]:
    """Whether the token before the source equals the destination's token."""
    before = torch.cat([tokens[:, :1], tokens[:, :-1]], dim=1)
    return (tokens[:, :, None] == before[:, None, :]).tril()
