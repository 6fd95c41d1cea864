"""What all skip-trigram tables read: circuits as softmax sees them, and tokens by their words."""

import copy
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses.heads.copying import centred
from circuits.decomposition import full_OV, full_QK
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, AnyHead, Vocabulary, check_predicts
from circuits.model import head as head_of


def circuits(model: GPT) -> tuple[FactoredMatrix, FactoredMatrix]:
    """QK [layer head destination source] and OV [layer head source out] of every head, each row
    less its mean; ValueError for a model without a tokenizer, whose tokens are no words."""
    vocabulary(model)
    return _centred(model)


def through_first_norm(model: GPT) -> GPT:
    """A copy whose embedding is what the first layer's norm makes of it, each token by itself, but
    for the norm's gain, which circuits hold: QK scores are then those that layer 0 computes,
    positions and biases aside. The paper does so for its one-layer tables. A model without norms is
    copied as it is."""
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


def circuits_of(model: GPT, head: AnyHead) -> tuple[FactoredMatrix, FactoredMatrix]:
    """QK [destination source] and OV [source out] of one head, each row less its mean; of any
    model, for tokens can be given by their numbers."""
    at = head_of(model.cfg, head)
    QK, OV = (FactoredMatrix(*circuit[at].pair) for circuit in _centred(model))
    return QK, OV


def _centred(model: GPT) -> tuple[FactoredMatrix, FactoredMatrix]:
    check_predicts(model.cfg, "a skip-trigram")
    return centred(full_QK(model)), centred(full_OV(model))


def product(qk: Float[Tensor, "*#a"], ov: Float[Tensor, "*#a"]) -> Float[Tensor, "*a"]:
    """The score of a skip-trigram, max(QK, 0) * OV."""
    return qk.clamp(min=0) * ov


def vocabulary(model: GPT) -> Vocabulary:
    """The model's tokenizer; ValueError if it has none."""
    if model.tokenizer is None:
        raise ValueError("skip-trigrams are words: the model has no tokenizer")
    return model.tokenizer


def tokens_of(model: GPT, words: Iterable[str | int]) -> Int[Tensor, " token"]:
    """Tokens given as text or as numbers; ValueError for a text that is not one token, and for a
    number outside of the vocabulary."""
    found = [word if isinstance(word, int) else model.to_single_token(word) for word in words]
    for token in found:
        if not 0 <= token < model.cfg.d_vocab:
            raise ValueError(f"there is no token {token}: they are 0 to {model.cfg.d_vocab - 1}")
    if not found:
        raise ValueError("wanted one token or more, got none")
    return torch.tensor(found, device=model.W_E.device)


def words_of(model: GPT, tokens: Int[Tensor, "*shape"]) -> list[str]:
    """Each token as a string of its own, in order; its number where there is no tokenizer."""
    if model.tokenizer is None:
        return [str(token) for token in tokens.flatten().tolist()]
    return [model.to_string(token) for token in tokens.flatten().tolist()]
