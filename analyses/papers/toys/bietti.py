"""Bietti et al. 2023, "Birth of a Transformer: A Memory Viewpoint": weights as memories of pairs.

https://arxiv.org/abs/2306.00802, the simplified model: one head per layer, no norm, no MLP. Random,
nearly orthogonal embeddings are frozen, and W_Q is the identity; three matrices learn:

    W_K1: the position before each position    W_K2: each trigger, as layer 1 writes it
    W_O2: each token, to repeat it when it is attended to

The code uses row vectors, so each product below is the transpose of the paper's product.
"""

import math
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.papers.toys import descent
from analyses.prompts import passages
from circuits.data import BigramTriggers
from circuits.model import GPT, GPTConfig
from circuits.training import next_token_loss

RATE = 0.01
"The learning rate of Adam, which is quicker here than the paper's SGD with momentum."


def letters() -> Int[Tensor, " pos"]:
    """The prose that ships, in small letters. Each letter is a token, numbered from 0 in sorted
    order."""
    text = " ".join(passages.passage(name) for name in passages.NAMES if name != "code").lower()
    alphabet = {letter: i for i, letter in enumerate(sorted(set(text)))}
    return torch.tensor([alphabet[letter] for letter in text])


def triggers(length: int = 48, count: int = 5, *, seed: int = 0) -> BigramTriggers:
    """Rows of `length`+1 letters. In a row each of the `count` most frequent letters has one
    successor."""
    text = letters()
    often = text.bincount().argsort(descending=True)[:count].tolist()
    size = int(text.max()) + 1
    return BigramTriggers(text, size, length=length + 1, triggers=often, seed=seed)


def simplified(
    data: BigramTriggers, *, n_layers: int = 2, d_model: int = 128, seed: int = 0
) -> GPT:
    """The paper's model for these rows, at initialisation. The matrices that learn start at 0. The
    frozen matrices are Gaussian, with vectors of length about 1. With one layer, W_K1 and W_O1
    learn."""
    cfg = GPTConfig(n_layers=n_layers, d_model=d_model, n_heads=1, d_head=d_model, attn_scale=1.0,
                    d_vocab=len(data.unigram), n_ctx=data.length - 1, normalization_type=None,
                    bias=False, init_range=1 / math.sqrt(d_model), seed=seed)  # fmt: skip
    model = GPT(cfg).requires_grad_(False)
    named = dict(model.named_parameters())
    with torch.no_grad():
        for layer in range(n_layers):
            named[f"blocks.{layer}.attn.W_Q"].copy_(torch.eye(d_model)[None])
        for weight in memories(model):
            weight.zero_().requires_grad_(True)
    return model


def memories(model: GPT) -> list[Tensor]:
    """The matrices that learn: W_K of every layer and W_O of the last, each [1 d_model d_model]."""
    named, last = dict(model.named_parameters()), model.cfg.n_layers - 1
    keys = [named[f"blocks.{layer}.attn.W_K"] for layer in range(last + 1)]
    return [*keys, named[f"blocks.{last}.attn.W_O"]]


def learn(
    model: GPT, data: BigramTriggers, steps: int, *, batch: int = 32, every: int = 10
) -> DataArray:
    """Train the memories in place. Returns the in-context accuracy and the recall of every memory,
    (what, step)."""
    test = descent.unseen(data)
    rows, answers = test.batch(0, 128), test.answers(0, 128)
    return descent.learn(
        data,
        steps,
        partial(next_token_loss, model),
        [torch.optim.Adam(memories(model), lr=RATE)],
        lambda: {"accuracy": accuracy(model, rows, answers), **recall(model, data)},
        batch=batch,
        every=every,
    )


def accuracy(model: GPT, rows: Int[Tensor, "batch pos"], answers: Tensor) -> float:
    """The share of the tokens marked in `answers`, [batch pos], that are the model's first
    guess."""
    right = model(rows[:, :-1]).argmax(-1) == rows[:, 1:]
    return float(right[answers[:, 1:]].float().mean())


def recall(model: GPT, data: BigramTriggers) -> dict[str, float]:
    """The share of its pairs that each memory recalls, in [0, 1]; chance is one over the number of
    tokens or positions. W_K2 is tested on the triggers, or on every token if triggers are drawn for
    each row.

    W_O2: attention to a token raises that token most. W_K2: a trigger's query has its largest score
    with the vector that layer 1 writes for that trigger. W_K1: a position's query has its largest
    score with the position before it, among all positions up to its own.
    """
    W_Q, W_K, W_V, W_O = (W[:, 0] for W in (model.W_Q, model.W_K, model.W_V, model.W_O))
    E, P = model.W_E, model.W_pos
    found = {"W_O2": _own(E @ W_V[-1] @ W_O[-1] @ model.W_U)}
    if model.cfg.n_layers == 2:
        w_1 = E @ W_V[0] @ W_O[0]
        asked = None if isinstance(data.triggers, int) else list(data.triggers)
        found["W_K2"] = _own(E @ W_Q[1] @ (w_1 @ W_K[1]).T, asked)
        places = P @ W_Q[0] @ (P @ W_K[0]).T
        future = torch.ones_like(places).triu(1).bool()
        found["W_K1"] = _own(places.masked_fill(future, -math.inf)[1:])  # 1 finds 0, 2 finds 1
    return found


def _own(scores: Float[Tensor, "row column"], rows: list[int] | None = None) -> float:
    """The share of rows, or of the given `rows`, whose only largest entry is on the diagonal."""
    asked = torch.arange(len(scores)) if rows is None else torch.tensor(rows)
    own = scores[asked, asked]
    others = scores[asked].scatter(1, asked[:, None], -math.inf).amax(-1)
    return float((own > others).float().mean())
