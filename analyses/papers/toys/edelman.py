"""Edelman et al. 2024, "The Evolution of Statistical Induction Heads": Markov chains in context.

https://arxiv.org/abs/2402.11004. Every sequence has a chain of its own. A model can ignore the
sequence (uniform), count its tokens (unigram), or count the tokens that followed the current token
(bigram). Models pass through these strategies in turn. The minimal model has a vector v over lags
and a matrix W over tokens.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from xarray import DataArray

from analyses.papers.toys import descent
from circuits.data import MarkovChains
from circuits.model import GPT, GPTConfig
from circuits.training import Recipe, next_token_loss, optimizers

Odds = Float[Tensor, "batch pos d_vocab"]


def uniform(rows: Int[Tensor, "batch pos"], d_vocab: int) -> Odds:
    """1/d_vocab for every next token."""
    return torch.full((*rows.shape, d_vocab), 1 / d_vocab)


def unigram(rows: Int[Tensor, "batch pos"], d_vocab: int) -> Odds:
    """The count of each token so far, plus one, as a share of all counts."""
    counts = F.one_hot(rows, d_vocab).cumsum(1) + 1.0
    return counts / counts.sum(-1, keepdim=True)


def bigram(rows: Int[Tensor, "batch pos"], d_vocab: int) -> Odds:
    """The count of each token after the current token so far, plus one, as a share of all counts.
    This is the posterior mean of the row of the chain. A better prediction could only use the
    first token of the sequence, which also tells of the chain."""
    said = F.one_hot(rows, d_vocab).float()
    pairs = torch.einsum("bpk,bpl->bpkl", said[:, :-1], said[:, 1:]).cumsum(1)
    counts = torch.cat([torch.zeros_like(pairs[:, :1]), pairs], dim=1)
    followed = torch.einsum("bpk,bpkl->bpl", said, counts) + 1
    return followed / followed.sum(-1, keepdim=True)


STRATEGIES = {"uniform": uniform, "unigram": unigram, "bigram": bigram}


class Minimal(nn.Module):
    """The paper's model with two parameters: v over lags, W over tokens.

    Layer 1 mixes earlier tokens by lag, z_j = sum_i softmax(v)_(j-i) e_i over the lags up to j;
    layer 2 is linear attention, logits_t = sum_(j<=t) (e_t W z_j) e_j.
    """

    def __init__(self, d_vocab: int, n_ctx: int) -> None:
        super().__init__()
        self.v = nn.Parameter(torch.zeros(n_ctx))
        self.W = nn.Parameter(torch.zeros(d_vocab, d_vocab))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Odds:
        """Logits of the next token."""
        e = F.one_hot(tokens, len(self.W)).to(self.W.dtype)
        place = torch.arange(tokens.shape[1])
        lag = place[:, None] - place
        A = self.v[lag.clamp(min=0)].masked_fill(lag < 0, -math.inf).softmax(-1)
        return (e @ self.W @ (A @ e).mT).tril() @ e

    def loss(self, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
        """The mean loss in nats of each token, predicted from the tokens before it."""
        return F.cross_entropy(self(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def transformer(data: MarkovChains, *, n_layers: int = 2, seed: int = 0) -> GPT:
    """An attention-only GPT at initialisation: one head in each layer, d_head 16."""
    return GPT(GPTConfig(n_layers=n_layers, d_model=16, n_heads=1, d_head=16, d_vocab=data.d_vocab,
                         n_ctx=data.length - 1, positional_embedding_type="shortformer",
                         init_range=0.1, seed=seed))  # fmt: skip


def learn(
    model: GPT | Minimal, data: MarkovChains, steps: int, *, batch: int | None = None,
    every: int = 20,
) -> DataArray:  # fmt: skip
    """Train in place. Returns `divergences`, (what, step). A GPT learns by Muon and AdamW from
    batches of 32. The minimal model learns by the paper's SGD (rates 1 and 0.01) from batches of
    128. `batch` is another size."""
    test = descent.unseen(data)
    seen = partial(
        descent.learn, data, steps, measure=lambda: divergences(model, test), every=every
    )
    if isinstance(model, Minimal):
        rates = [{"params": [model.v], "lr": 1.0}, {"params": [model.W], "lr": 0.01}]
        return seen(model.loss, [torch.optim.SGD(rates)], batch=batch or 128)
    size = batch or 32
    recipe = Recipe(steps=max(steps, 1), batch_size=size, lr=0.01, muon_lr=0.02, warmup=20)
    return seen(partial(next_token_loss, model), optimizers(model, recipe), batch=size,
                schedule=recipe.schedule)  # fmt: skip


def divergences(model: nn.Module, data: MarkovChains, *, batch: int = 256) -> dict[str, float]:
    """KL(p || model) in nats over the later half of the positions: the distance of the model from
    p. Here p is the true chain ("truth") and each strategy."""
    rows = data.batch(0, batch)[:, :-1]
    with torch.no_grad():
        log_q = model(rows).log_softmax(-1)
    aims = {"truth": descent.true_odds(data, rows), **_strategies(rows, data.d_vocab)}
    return {name: _divergence(p, log_q) for name, p in aims.items()}


def strategy_divergences(data: MarkovChains, *, batch: int = 256) -> dict[str, float]:
    """KL(truth || strategy) in nats over the later half of the positions, on the test rows of
    `learn`."""
    test = descent.unseen(data)
    rows = test.batch(0, batch)[:, :-1]
    p = descent.true_odds(test, rows)
    return {name: _divergence(p, q.log()) for name, q in _strategies(rows, data.d_vocab).items()}


def _strategies(rows: Int[Tensor, "batch pos"], d_vocab: int) -> dict[str, Odds]:
    return {name: odds(rows, d_vocab) for name, odds in STRATEGIES.items()}


def _divergence(p: Odds, log_q: Odds) -> float:
    kl = (p * (p.clamp(min=1e-12).log() - log_q)).sum(-1)
    return float(kl[:, kl.shape[1] // 2 :].mean())
