"""Nichani et al. 2024, "How Transformers Learn Causal Structure with Gradient Descent".

https://arxiv.org/abs/2402.14735. Every sequence has a chain of its own. The chain draws the token
of each position from the token of its parent. The parent of each position is the same in all
sequences. To predict the token after the last one, the first layer must hand every position the
token of its parent (its attention is the graph). The second layer must find the positions that were
handed a copy of the last token.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from xarray import DataArray

from analyses.papers.toys import descent
from circuits.data import CausalGraph

RATE = 5.0
"The first learning rate of SGD, which falls along a cosine. The paper uses 1, over 2^17 steps."


class Disentangled(nn.Module):
    """The paper's two layers of one head. A layer appends its output to its input; it adds nothing.

    x = [token, position], one-hot; h = [x, attn(x A1 x^T) x]; logits = [h, attn(h A2 h^T) h] W at
    the last position. A1, A2 and W start at 0.
    """

    def __init__(self, d_vocab: int, n_ctx: int) -> None:
        super().__init__()
        self.d_vocab, self.n_ctx = d_vocab, n_ctx
        d = d_vocab + n_ctx
        self.A1 = nn.Parameter(torch.zeros(d, d))
        self.A2 = nn.Parameter(torch.zeros(2 * d, 2 * d))
        self.W = nn.Parameter(torch.zeros(4 * d, d_vocab))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch d_vocab"]:
        """The logits of the token after the last one."""
        e = F.one_hot(tokens, self.d_vocab).to(self.W.dtype)
        p = torch.eye(self.n_ctx, dtype=self.W.dtype)[: tokens.shape[1]].expand(len(tokens), -1, -1)
        x = torch.cat([e, p], dim=-1)
        h = torch.cat([x, causal_pattern(x @ self.A1 @ x.mT) @ x], dim=-1)
        asks = h[:, -1:]
        found = (asks @ self.A2 @ h.mT).softmax(-1) @ h
        return (torch.cat([asks, found], dim=-1) @ self.W)[:, 0]

    @property
    def positions(self) -> Float[Tensor, "pos pos"]:
        """Attention of layer 1 by position alone, (dest, src), each row a distribution."""
        return causal_pattern(self.A1[self.d_vocab :, self.d_vocab :])

    @property
    def matching(self) -> Float[Tensor, "d_vocab d_vocab"]:
        """The block of A2 by which the last token (row) scores positions by the token that layer 1
        handed to them (column)."""
        d = self.d_vocab + self.n_ctx
        return self.A2[: self.d_vocab, d : d + self.d_vocab]

    @property
    def saying(self) -> Float[Tensor, "d_vocab d_vocab"]:
        """The block of W from the found position's own token (row) to logits (column)."""
        d = self.d_vocab + self.n_ctx
        return self.W[2 * d : 2 * d + self.d_vocab]


def causal_pattern(scores: Float[Tensor, "*batch dest src"]) -> Float[Tensor, "*batch dest src"]:
    """softmax over the sources up to each destination."""
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -math.inf).softmax(-1)


def learn(
    model: Disentangled, data: CausalGraph, steps: int, *, batch: int = 128, every: int = 40,
    first_layer: bool = True,
) -> DataArray:  # fmt: skip
    """Train in place by SGD. Returns the loss less the loss of `posterior` (nats), the share of
    children whose parent gets the most attention of layer 1, and the mean attention to parents,
    (what, step). Without `first_layer` A1 stays 0."""
    learned = [model.A2, model.W, *([model.A1] if first_layer else [])]

    test = descent.unseen(data)
    return descent.learn(
        data,
        steps,
        lambda rows: F.cross_entropy(model(rows[:, :-1]), rows[:, -1]),
        [torch.optim.SGD(learned, lr=RATE)],
        lambda: {"loss": excess(model, test), **parents_found(model, data)},
        batch=batch,
        every=every,
        schedule=lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)),
    )


def excess(model: nn.Module, data: CausalGraph, *, batch: int = 2048) -> float:
    """The cross-entropy of the model under the true odds of the target, less the cross-entropy of
    `posterior`, in nats."""
    rows = data.batch(0, batch)
    p = descent.true_odds(data, rows[:, -2])
    with torch.no_grad():
        log_q = model(rows[:, :-1]).log_softmax(-1)
    return float((p * (posterior(rows[:, :-1], data).log() - log_q)).sum(-1).mean())


def posterior(rows: Int[Tensor, "batch pos"], data: CausalGraph) -> Float[Tensor, "batch d_vocab"]:
    """The paper's Bayes predictor. It finds the positions whose token equals the last token and
    counts the tokens of their children. The count of each token, plus alpha, is given as a share.
    The predictor knows the graph. It does not use only the information in the roots."""
    children, parents = _family(data)
    alike = (rows[:, parents] == rows[:, -1:]).float()
    said = F.one_hot(rows[:, children], data.d_vocab).float()
    counts = torch.einsum("bi,bik->bk", alike, said) + data.alpha
    return counts / counts.sum(-1, keepdim=True)


def parents_found(model: Disentangled, data: CausalGraph) -> dict[str, float]:
    """`parents` is the share of the children whose parent gets the most attention of layer 1.
    `attention` is the mean attention of layer 1 to the parents. Both are by position alone, in
    [0, 1]. The last position does not count."""
    children, parents = _family(data)
    pattern = model.positions.detach()[children]
    found = (pattern.argmax(-1) == torch.tensor(parents)).float().mean()
    attended = pattern[torch.arange(len(parents)), parents].mean()
    return {"parents": float(found), "attention": float(attended)}


def _family(data: CausalGraph) -> tuple[list[int], list[int]]:
    """The positions that have a parent, except the last position, and their parents."""
    pairs = [(i, parent) for i, parent in enumerate(data.parents[:-1]) if parent is not None]
    return [child for child, _ in pairs], [parent for _, parent in pairs]
