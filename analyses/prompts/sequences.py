"""Token sequences that expose one behaviour. They need no tokenizer."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from analyses.labelled import Model, tokens_of
from circuits.model import Ids


def bos_of(model: Model, given: int | None = None) -> int:
    """The token that begins a prompt for this model: `given`, or what model.bos says, or the
    model's tokenizer; 0 where nothing says it. ValueError for one outside of the vocabulary."""
    d_vocab = model.cfg.d_vocab
    if given is not None and not 0 <= given < d_vocab:
        raise ValueError(f"bos={given} must be a token of the vocabulary, 0 to {d_vocab - 1}")
    try:
        tokenizer = getattr(model, "tokenizer", None)
        known = (given, getattr(model, "bos", None), getattr(tokenizer, "bos_token_id", None))
    except OSError:  # a tokenizer that would have to be fetched, and cannot be
        known = (given,)
    return next((bos for bos in known if bos is not None and bos < d_vocab), 0)


def reach(model: Model) -> int:
    """The number of positions that a prompt may have by default: those that the model was trained
    on, by model.trained_ctx, or all n_ctx where nothing says it."""
    return min(getattr(model, "trained_ctx", None) or model.cfg.n_ctx, model.cfg.n_ctx)


def described(model: Model, tokens: Int[Tensor, "batch pos"]) -> dict[str, int]:
    """The attrs of a score that describe its prompts: their positions, and those of them that the
    model was not trained on, where it has told (see `reach`)."""
    positions = tokens.shape[1]
    untrained = positions - reach(model)
    return {"positions": positions, **({"untrained_positions": untrained} if untrained > 0 else {})}


def tokens_or(
    model: Model, given: Ids | str | None, default: Callable[[Model], Int[Tensor, "batch pos"]]
) -> Int[Tensor, "batch pos"]:
    """The tokens or text given, as the model takes them; `default(model)` where none are given."""
    return default(model) if given is None else tokens_of(model, given)


def random_tokens(
    model: Model,
    length: int | None = None,
    *,
    batch: int = 8,
    times: int = 1,
    bos: int | None = None,
    seed: int = 0,
) -> Int[Tensor, "batch pos"]:
    """BOS (see `bos_of`), then `length` random tokens said `times` times: [batch 1+times*length].

    Without a length, as many tokens as fit, up to 64. Uniform over the vocabulary without BOS, and
    distinct within a row where the vocabulary is large enough, so that only the repeat can be
    matched. ValueError if they do not fit into n_ctx.
    """
    bos = bos_of(model, bos)
    if batch < 1:
        raise ValueError(f"batch={batch}: wanted is at least one row of tokens")
    d_vocab, n_ctx = model.cfg.d_vocab, model.cfg.n_ctx
    length = min(64, (reach(model) - 1) // max(times, 1)) if length is None else length
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
    model: Model,
    length: int | None = None,
    *,
    batch: int = 8,
    bos: int | None = None,
    seed: int = 0,
) -> Int[Tensor, "batch pos"]:
    """BOS + R + R, R random tokens: only a model that looks back can predict the second R.

    Without a length, as many tokens as fit, up to 64.
    """
    return random_tokens(model, length, batch=batch, times=2, bos=bos, seed=seed)


def length_of_repeat(tokens: Int[Tensor, "batch pos"]) -> int:
    """The number of tokens of R in BOS + R + R; ValueError for tokens of another form."""
    n = tokens.shape[1] // 2
    first, second = tokens[:, 1 : n + 1], tokens[:, n + 1 :]
    if n < 1 or not first.equal(second):
        raise ValueError("wanted BOS and tokens that are said twice, as prompts.repeated(model) "
                         "gives them")  # fmt: skip
    return n


def repeated_often(
    model: Model, *, batch: int = 10, bos: int | None = None, seed: int = 0
) -> Int[Tensor, "batch pos"]:
    """BOS and 25 random tokens said four times: the prompt of Olsson et al.'s prefix matching.

    They leave out the most and least common tokens, which this does not: it knows no frequencies.
    Where the context is too short for it, as many copies as fit, at least two.
    """
    length = min(25, (reach(model) - 1) // 2)
    times = min(4, (reach(model) - 1) // max(length, 1))
    return random_tokens(model, length, times=times, batch=batch, bos=bos, seed=seed)
