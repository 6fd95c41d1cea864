"""Edelman et al. 2024, "The Evolution of Statistical Induction Heads": Markov chains in context.

https://arxiv.org/abs/2402.11004. Every sequence has a chain of its own. A model can ignore it
(uniform), count its tokens (unigram), or count what followed the current token (bigram); models
pass through these in turn. The minimal model has a vector v over lags and a matrix W over tokens.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from xarray import DataArray

from analyses.papers.toys.descent import descend
from circuits.data import MarkovChains
from circuits.model import GPT, GPTConfig
from circuits.training import Recipe, next_token_loss, optimizers

Odds = Float[Tensor, "batch pos d_vocab"]


def uniform(rows: Int[Tensor, "batch pos"], d_vocab: int) -> Odds:
    """1/d_vocab for every next token."""
    return torch.full((*rows.shape, d_vocab), 1 / d_vocab)


def unigram(rows: Int[Tensor, "batch pos"], d_vocab: int) -> Odds:
    """How often each token was said so far, plus one, as shares."""
    counts = F.one_hot(rows, d_vocab).cumsum(1) + 1.0
    return counts / counts.sum(-1, keepdim=True)


def bigram(rows: Int[Tensor, "batch pos"], d_vocab: int) -> Odds:
    """How often each token followed the current one so far, plus one, as shares: the posterior mean
    of the chain's row, and so the best prediction but for what the first token tells."""
    said = F.one_hot(rows, d_vocab).float()
    pairs = torch.einsum("bpk,bpl->bpkl", said[:, :-1], said[:, 1:]).cumsum(1)
    counts = torch.cat([torch.zeros_like(pairs[:, :1]), pairs], dim=1)
    followed = torch.einsum("bpk,bpkl->bpl", said, counts) + 1
    return followed / followed.sum(-1, keepdim=True)


STRATEGIES = {"uniform": uniform, "unigram": unigram, "bigram": bigram}


class Minimal(nn.Module):
    """The paper's model of two parameters: v over lags, W over tokens.

    Layer 1 mixes earlier tokens by lag, z_j = sum_i softmax(v)_(j-i) e_i over the lags there are;
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


def learn_minimal(
    model: Minimal, data: MarkovChains, steps: int, *, batch: int = 128, every: int = 20
) -> DataArray:
    """Train v and W in place with the paper's SGD (rates 1 and 0.01): divergences, (what, step)."""
    opt = torch.optim.SGD([{"params": [model.v], "lr": 1.0}, {"params": [model.W], "lr": 0.01}])

    def loss(step: int) -> Float[Tensor, ""]:
        rows = data.batch(step, batch)
        return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    test = _test(data)
    return descend(loss, [opt], steps, lambda: divergences(model, test), every=every)


def transformer(data: MarkovChains, *, n_layers: int = 2, seed: int = 0) -> GPT:
    """An attention-only GPT with one head of 16 per layer, as initialised."""
    return GPT(GPTConfig(n_layers=n_layers, d_model=16, n_heads=1, d_head=16, d_vocab=data.d_vocab,
                         n_ctx=data.length - 1, positional_embedding_type="shortformer",
                         init_range=0.1, seed=seed))  # fmt: skip


def learn(
    model: GPT, data: MarkovChains, steps: int, *, batch: int = 32, every: int = 20
) -> DataArray:
    """Train a GPT in place: divergences, (what, step)."""
    recipe = Recipe(steps=max(steps, 1), batch_size=batch, lr=0.01, muon_lr=0.02, warmup=20)
    test = _test(data)
    return descend(
        lambda step: next_token_loss(model, data.batch(step, batch)),
        optimizers(model, recipe),
        steps,
        lambda: divergences(model, test),
        every=every,
        schedule=recipe.schedule,
    )


def divergences(model: nn.Module, data: MarkovChains, *, batch: int = 256) -> dict[str, float]:
    """KL(p || model) in nats over the later half of the positions, for p the true chain ("truth")
    and each strategy: how far the model is from it."""
    rows = data.batch(0, batch)[:, :-1]
    with torch.no_grad():
        log_q = model(rows).log_softmax(-1)
    aims = {"truth": true_odds(data, batch), **_strategies(rows, data.d_vocab)}
    return {name: _divergence(p, log_q) for name, p in aims.items()}


def strategy_divergences(data: MarkovChains, *, batch: int = 256) -> dict[str, float]:
    """KL(truth || strategy) in nats over the later half of the positions, on the rows that
    `learn` tests on."""
    test = _test(data)
    rows, p = test.batch(0, batch)[:, :-1], true_odds(test, batch)
    return {name: _divergence(p, q.log()) for name, q in _strategies(rows, data.d_vocab).items()}


def true_odds(data: MarkovChains, batch: int) -> Odds:
    """The chain's own probabilities after each token of the first batch but the last."""
    rows = data.batch(0, batch)[:, :-1]
    return data.transitions(0, batch).float()[torch.arange(batch)[:, None], rows]


def _strategies(rows: Int[Tensor, "batch pos"], d_vocab: int) -> dict[str, Odds]:
    return {name: odds(rows, d_vocab) for name, odds in STRATEGIES.items()}


def _divergence(p: Odds, log_q: Odds) -> float:
    kl = (p * (p.clamp(min=1e-12).log() - log_q)).sum(-1)
    return float(kl[:, kl.shape[1] // 2 :].mean())


def _test(data: MarkovChains) -> MarkovChains:
    """The same process from another seed."""
    return MarkovChains(data.d_vocab, length=data.length, order=data.order, seed=data.seed + 1,
                        doubly_stochastic=data.doubly_stochastic)  # fmt: skip
