"""The QK and OV circuits of skip-trigram tables, with row means subtracted, and tokens as words."""

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.heads.copying import centre_rows
from analyses.labelled import words_of
from circuits.decomposition import full_OV, full_QK
from circuits.matrices import FactoredMatrix, blocks
from circuits.model import GPT, AnyHead, Head, Vocabulary, check_predicts, every_head
from circuits.model import head as head_of

Words = list[tuple[str, float]]
"Tokens as words with their scores, largest first."


def each_head(model: GPT) -> Iterator[tuple[Head, FactoredMatrix, FactoredMatrix]]:
    """Every head with its QK [destination source] and OV [source out], minus the mean of each row;
    ValueError for a model without a tokenizer."""
    vocabulary(model)
    QK, OV = _centred(model)
    for at in every_head(model.cfg):
        yield at, FactoredMatrix(*QK[at].pair), FactoredMatrix(*OV[at].pair)


def circuits_of(model: GPT, head: AnyHead) -> tuple[FactoredMatrix, FactoredMatrix]:
    """QK [destination source] and OV [source out] of one head, minus the mean of each row. It needs
    no tokenizer."""
    at = head_of(model.cfg, head)
    QK, OV = (FactoredMatrix(*circuit[at].pair) for circuit in _centred(model))
    return QK, OV


def _centred(model: GPT) -> tuple[FactoredMatrix, FactoredMatrix]:
    check_predicts(model.cfg, "a skip-trigram")
    return centre_rows(full_QK(model)), centre_rows(full_OV(model))


def through_first_norm(model: GPT) -> GPT:
    """A copy of the model with each token's embedding normalised, as the norm of layer 0 does. The
    gain of the norm is left out, because circuits already contain it. QK scores are then the scores
    of layer 0, without positions and biases. The paper does so for its one-layer tables. A model
    without norms is copied unchanged."""
    read = copy.deepcopy(model)
    with torch.no_grad():
        x = model.W_E.detach()
        kind = model.cfg.normalization_type or ""
        if kind.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        if kind:
            x = x / (x.pow(2).mean(-1, keepdim=True) + model.cfg.eps).sqrt()
        read.embed.W_E.copy_(x)
    return read


def product(qk: Float[Tensor, "*#a"], ov: Float[Tensor, "*#a"]) -> Float[Tensor, "*a"]:
    """The score of a skip-trigram, max(QK, 0) * OV."""
    return qk.clamp(min=0) * ov


def best_of_sources(
    QK: FactoredMatrix, OV: FactoredMatrix, block_bytes: int
) -> Float[Tensor, " source"]:
    """The score of each source's largest skip-trigram, computed in blocks of sources."""
    parts = blocks(QK.rdim, QK.ldim * QK.factors[0].element_size(), block_bytes)
    best = [product(QK.columns(part).amax(0), OV.rows(part).amax(-1)) for part in parts]
    return torch.cat(best)


def entries(
    circuit: FactoredMatrix, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The entries of a circuit at the pairs (rows[i], columns[i])."""
    return (circuit.A[rows] * circuit.B.T[columns]).sum(-1)


def squared_norms(circuit: FactoredMatrix, rows: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The squared norm of each of these rows of a circuit."""
    A, B = circuit.pair
    return ((A[rows] @ (B @ B.T)) * A[rows]).sum(-1)


def ranks(
    circuit: FactoredMatrix, rows: Int[Tensor, " n"], columns: Int[Tensor, " n"]
) -> Int[Tensor, " n"]:
    """For each pair (rows[i], columns[i]) the number of larger entries in this row."""
    found = [rows.new_empty(0)]
    for at, column in zip(rows.split(256), columns.split(256), strict=True):
        scores = circuit.rows(at)
        found.append((scores > scores.gather(1, column[:, None])).sum(-1))
    return torch.cat(found)


def top_words(model: GPT, scores: Float[Tensor, "row d_vocab"], k: int) -> list[Words]:
    """The k tokens of each row with the largest scores, as words, largest first."""
    values, tokens = scores.topk(k)
    return [
        list(zip(words_of(model, row), value.tolist(), strict=True))
        for row, value in zip(tokens, values, strict=True)
    ]


def check_counts(model: GPT, **counts: int) -> None:
    """ValueError unless each of these numbers of tokens is from 1 to d_vocab."""
    for name, count in counts.items():
        if not 1 <= count <= model.cfg.d_vocab:
            raise ValueError(f"{name} is from 1 to d_vocab={model.cfg.d_vocab}, got {count}")


def vocabulary(model: GPT) -> Vocabulary:
    """The model's tokenizer; ValueError if it has none."""
    if model.tokenizer is None:
        raise ValueError("skip-trigrams are words: the model has no tokenizer")
    return model.tokenizer


def strings(model: GPT) -> list[str]:
    """Every token of the vocabulary as a string; ValueError for a model without a tokenizer."""
    return words_of(model, torch.arange(vocabulary(model).size))


def tokens_where(
    model: GPT, is_wanted: Callable[[str], bool], wanted: str
) -> Int[Tensor, " token"]:
    """The tokens whose string passes `is_wanted`; ValueError that names `wanted` if none does."""
    found = [token for token, string in enumerate(strings(model)) if is_wanted(string)]
    if not found:
        raise ValueError(f"the vocabulary has no {wanted}")
    return torch.tensor(found, device=model.W_E.device)


def single_tokens(model: GPT, words: Iterable[str | int]) -> Int[Tensor, " token"]:
    """Tokens given as text or as numbers; ValueError for a text that is not one token, and for a
    number outside of the vocabulary."""
    found = [word if isinstance(word, int) else model.to_single_token(word) for word in words]
    for token in found:
        if not 0 <= token < model.cfg.d_vocab:
            raise ValueError(f"there is no token {token}: they are 0 to {model.cfg.d_vocab - 1}")
    if not found:
        raise ValueError("expected one token or more, got none")
    return torch.tensor(found, device=model.W_E.device)
