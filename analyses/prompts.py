"""Token sequences that expose one behaviour. They need no tokenizer."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from analyses.labelled import Model


def random_tokens(
    model: Model, length: int = 64, *, batch: int = 8, times: int = 1, bos: int = 0, seed: int = 0
) -> Int[Tensor, "batch pos"]:
    """BOS, then `length` random tokens said `times` times: [batch 1+times*length].

    Uniform over the vocabulary without BOS, and distinct within a row where the vocabulary is large
    enough, so that only the repeat can be matched. ValueError if they do not fit into n_ctx.
    """
    if batch < 1:
        raise ValueError(f"batch={batch}: wanted is at least one row of tokens")
    d_vocab, n_ctx = model.cfg.d_vocab, model.cfg.n_ctx
    if length < 1 or times < 1 or 1 + times * length > n_ctx:
        raise ValueError(
            f"BOS and {times} times {length} tokens are {1 + times * length}; the model reads "
            f"at least 2 and at most n_ctx={n_ctx}"
        )
    rng = np.random.default_rng(seed)
    others = np.delete(np.arange(d_vocab), bos)
    rows = [rng.choice(others, length, replace=length > len(others)) for _ in range(batch)]
    return torch.tensor(np.array([[bos, *np.tile(row, times)] for row in rows]))


def repeated(
    model: Model, length: int | None = None, *, batch: int = 8, seed: int = 0
) -> Int[Tensor, "batch pos"]:
    """BOS + R + R, R random tokens: only a model that looks back can predict the second R.

    Without a length, as many tokens as fit, up to 64.
    """
    fits = min(64, (model.cfg.n_ctx - 1) // 2)
    return random_tokens(model, fits if length is None else length, batch=batch, times=2, seed=seed)


def repeated_often(model: Model, *, batch: int = 10, seed: int = 0) -> Int[Tensor, "batch pos"]:
    """BOS and 25 random tokens said four times: the prompt of Olsson et al.'s prefix matching.

    They leave out the most and least common tokens, which this does not: it knows no frequencies.
    Where the context is too short for it, as many copies as fit, at least two.
    """
    length = min(25, (model.cfg.n_ctx - 1) // 2)
    times = min(4, (model.cfg.n_ctx - 1) // max(length, 1))
    return random_tokens(model, length, times=times, batch=batch, seed=seed)
