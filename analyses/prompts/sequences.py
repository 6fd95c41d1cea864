"""Token sequences that show one behaviour of a head. They need no tokenizer."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from analyses.labelled import Model, tokens_of
from circuits.model import Ids


def bos_of(model: Model, given: int | None = None) -> int:
    """The first token of a prompt for this model: `given`, else model.bos, else the tokenizer's
    BOS, else 0. ValueError if `given` is outside of the vocabulary."""
    d_vocab = model.cfg.d_vocab
    if given is not None and not 0 <= given < d_vocab:
        raise ValueError(f"bos={given} must be a token of the vocabulary, 0 to {d_vocab - 1}")
    try:
        tokenizer = getattr(model, "tokenizer", None)
        known = (given, getattr(model, "bos", None), getattr(tokenizer, "bos_token_id", None))
    except OSError:  # the tokenizer cannot be fetched
        known = (given,)
    return next((bos for bos in known if bos is not None and bos < d_vocab), 0)


def reach(model: Model) -> int:
    """The largest number of positions of a default prompt: model.trained_ctx if the model has it,
    else n_ctx."""
    return min(getattr(model, "trained_ctx", None) or model.cfg.n_ctx, model.cfg.n_ctx)


def described(model: Model, tokens: Int[Tensor, "batch pos"]) -> dict[str, int]:
    """The attrs of a score that describe its prompts: the number of positions and, if there are
    any, the number of positions on which the model was not trained (see `reach`)."""
    positions = tokens.shape[1]
    untrained = positions - reach(model)
    return {"positions": positions, **({"untrained_positions": untrained} if untrained > 0 else {})}


def tokens_or(
    model: Model, given: Ids | str | None, default: Callable[[Model], Int[Tensor, "batch pos"]]
) -> Int[Tensor, "batch pos"]:
    """The given tokens or text as a batch of tokens; `default(model)` for None."""
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
    """BOS (see `bos_of`), then `length` random tokens, `times` times over: [batch 1+times*length].

    The default length is as many tokens as fit, up to 64. Tokens are uniform over the vocabulary
    without BOS. In a row they are distinct if the vocabulary is large enough, so that a token only
    matches its repeats. ValueError if they do not fit into n_ctx.
    """
    bos = bos_of(model, bos)
    if batch < 1:
        raise ValueError(f"batch={batch}: at least one row of tokens is needed")
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
    """BOS + R + R, with random tokens R: only a model that reads the context can predict the second
    R. The default length of R is as many tokens as fit, up to 64.
    """
    return random_tokens(model, length, batch=batch, times=2, bos=bos, seed=seed)


def ciphered(
    model: Model,
    cipher: Int[Tensor, " d_vocab"],
    length: int = 25,
    *,
    batch: int = 10,
    seed: int = 0,
) -> Int[Tensor, "batch pos"]:
    """BOS + R + cipher(R), with random tokens R: token t becomes cipher[t]. R has `length` distinct
    tokens, or fewer if the context or the vocabulary is too small. No token of R becomes another
    one of R, so that each token of the second passage has one match. ValueError unless the cipher
    is a permutation of the vocabulary in which no token but BOS stays.
    """
    bos, d_vocab = bos_of(model), model.cfg.d_vocab
    to = cipher.tolist()
    stays = [token for token in range(d_vocab) if token < len(to) and to[token] == token]
    if sorted(to) != list(range(d_vocab)) or stays != [bos]:
        raise ValueError(f"expected a permutation of {d_vocab} tokens in which BOS, {bos}, stays "
                         f"and no other; got {len(to)} tokens, and {len(stays)} stay")  # fmt: skip
    rng = np.random.default_rng(seed)
    rows = [_apart(rng.permutation(d_vocab).tolist(), to, bos) for _ in range(batch)]
    n = min(length, (reach(model) - 1) // 2, *map(len, rows))
    first = torch.tensor([row[:n] for row in rows])
    return torch.cat([torch.full((batch, 1), bos), first, cipher.cpu()[first]], dim=1)


def _apart(order: list[int], to: list[int], bos: int) -> list[int]:
    """The tokens of `order` of which none becomes another one, taken greedily; without BOS."""
    taken: list[int] = []
    banned = {bos}
    back = {after: before for before, after in enumerate(to)}
    for token in order:
        if token not in banned:
            taken.append(token)
            banned |= {token, to[token], back[token]}
    return taken


def length_of_repeat(tokens: Int[Tensor, "batch pos"]) -> int:
    """The number of tokens of R in BOS + R + R; ValueError for tokens of another form."""
    n = tokens.shape[1] // 2
    first, second = tokens[:, 1 : n + 1], tokens[:, n + 1 :]
    if n < 1 or not first.equal(second):
        raise ValueError("expected BOS + R + R, tokens and their repeat, as "
                         "prompts.repeated(model) gives them")  # fmt: skip
    return n


def repeated_often(
    model: Model, *, batch: int = 10, bos: int | None = None, seed: int = 0
) -> Int[Tensor, "batch pos"]:
    """BOS and 25 random tokens, four times over: the prompt of Olsson et al.'s prefix matching.

    Olsson et al. leave out the most and least common tokens; here all tokens but BOS are drawn. In
    a short context there are fewer copies, at least two, then fewer tokens.
    """
    length = min(25, (reach(model) - 1) // 2)
    times = min(4, (reach(model) - 1) // max(length, 1))
    return random_tokens(model, length, times=times, batch=batch, bos=bos, seed=seed)
