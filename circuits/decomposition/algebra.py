"""Weights only: the circuits of a head, virtual heads, and how much later heads read of earlier
ones. (Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html)

Row vectors, as everywhere here: W_QK = W_Q W_K^T and W_OV = W_V W_O. Everything stays factored.

Norms. A norm is x -> (x - mean) / sigma * w + b. Centring and the gain w are linear, and are folded
into the weights that read from it; b and the biases are left out; 1/sigma is a number for each
position, which freezing a run would fix. So a circuit is exact up to one positive factor per
position and norm on its way: it moves no sign, and no eigenvalue across zero, but circuits that
pass through different norms do not compare in size. Without norms they are exact as they stand,
but for smeared keys, which a run mixes with the key before. `model.QK` and `model.OV` are the bare
products of the parameters: no norm folded in, no scale.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.matrices import FactoredMatrix
from circuits.model import GPT, AnyHead, AnyPath, Head, Norm, components

LayerHead = Float[Tensor, "layer head d_model d_head"]


def QK(model: GPT) -> FactoredMatrix:
    """W_Q W_K^T / scale, [layer head d_model d_model]: entry [i, j] is the score that direction i
    of a destination gives direction j of a source."""
    return FactoredMatrix(reads(model, "Q"), reads(model, "K").mT)


def OV(model: GPT) -> FactoredMatrix:
    """W_V W_O, [layer head d_model d_model]: what the head writes of what it attends to."""
    return FactoredMatrix(reads(model, "V"), writes(model))


def full_QK(model: GPT) -> FactoredMatrix:
    """W_E W_QK W_E^T / scale, [layer head d_vocab d_vocab]: entry [query, key] is the score that a
    query token gives a key token, positions and biases aside."""
    return FactoredMatrix(_embedding(model), *QK(model).factors, _embedding(model).T)


def biased_QK(model: GPT) -> FactoredMatrix:
    """(W_E W_Q + b_Q) (W_E W_K + b_K)^T / scale, [layer head d_vocab d_vocab]: `full_QK` with the
    biases of the head and of its norm, which let a head seek or offer tokens whoever asks.

    With a norm, its 1/sigma is left out, which the biases do not share. ValueError for a model
    without biases.
    """
    if not model.cfg.bias:
        raise ValueError("the model has no biases (bias=False): see full_QK")
    sides = []
    for what in ("Q", "K"):
        b = _stack(
            getattr(model, f"W_{what}")[:, :, 0], [_bias(block, what) for block in model.blocks]
        )
        b = _finite(f"b_{what}", b)
        b = b / _score_scale(model) if what == "Q" else b
        sides.append(FactoredMatrix(_embedding(model), reads(model, what)) + b[..., None, :])
    return FactoredMatrix(*sides[0].factors, *sides[1].T.factors)


def full_OV(model: GPT) -> FactoredMatrix:
    """W_E W_OV W_U, [layer head d_vocab d_vocab]: entry [source, out] is how attending to a source
    token raises the logit of an out token, read straight from the embedding."""
    return FactoredMatrix(_embedding(model), *OV(model).factors, unembedding(model))


def direct_path(model: GPT) -> FactoredMatrix:
    """W_E W_U, [d_vocab d_vocab]: what a token alone says of the next one (bigrams)."""
    return FactoredMatrix(_embedding(model), unembedding(model))


def positional_QK(model: GPT) -> FactoredMatrix:
    """W_pos W_QK W_pos^T / scale, [layer head n_ctx n_ctx]: entry [dest, src] is the score that a
    position gives another by their places alone. ValueError for a model without positions."""
    if not model.cfg.shortformer:
        W_pos = _finite("W_pos", model.W_pos)
        return FactoredMatrix(W_pos, *QK(model).factors, W_pos.T)
    # Shortformer positions are added behind the norm, and so meet W_Q and W_K as they are.
    W_pos, W_Q, W_K = (_finite(name, getattr(model, name)) for name in ("W_pos", "W_Q", "W_K"))
    return FactoredMatrix(W_pos, W_Q / _score_scale(model), W_K.mT, W_pos.T)


def neuron_reads(model: GPT) -> FactoredMatrix:
    """W_E W_in, [layer d_vocab d_mlp]: how a token drives each neuron, read straight from the
    embedding. ValueError for an attention-only model."""
    return FactoredMatrix(_embedding(model), _neurons(model))


def neuron_reads_through_heads(model: GPT, layer: int) -> FactoredMatrix:
    """W_E W_OV W_in of the MLP in `layer`, [head_layer head d_vocab d_mlp]: how a token that a head
    of layers 0 to `layer` attends to drives each neuron. ValueError for an attention-only model."""
    components.mlp(model.cfg, f"MLP{layer}")
    return FactoredMatrix(
        _embedding(model), *OV(model)[: layer + 1].factors, _neurons(model)[layer]
    )


def neuron_writes(model: GPT) -> FactoredMatrix:
    """W_out W_U, [layer d_mlp d_vocab]: how each neuron raises each logit."""
    return FactoredMatrix(_finite("W_out", model.W_out), unembedding(model))


def virtual_OV(model: GPT, chain: Sequence[AnyHead]) -> FactoredMatrix:
    """W_OV of the virtual head that a chain of heads makes, [d_model d_model]: W_OV^1 W_OV^2 ...

    The first head reads the stream, each later one what the one before it wrote. ValueError unless
    the layers increase.
    """
    each, found = OV(model), components.heads(model.cfg, chain)
    if not found:
        raise ValueError("a virtual head is made of one head or more, got none")
    return FactoredMatrix(*(factor for at in found for factor in each[at].factors))


def full_virtual_OV(model: GPT, chain: Sequence[AnyHead]) -> FactoredMatrix:
    """W_E W_OV^1 W_OV^2 ... W_U, [d_vocab d_vocab], of a virtual head: see `virtual_OV`."""
    return FactoredMatrix(_embedding(model), *virtual_OV(model, chain).factors, unembedding(model))


def composed_QK(
    model: GPT,
    reader: AnyHead,
    *,
    query: Sequence[AnyHead] = (),
    key: Sequence[AnyHead] = (),
) -> FactoredMatrix:
    """W_E W_OV^query W_QK (W_E W_OV^key)^T / scale, [d_vocab d_vocab]: the score that a token moved
    to the destination by the `query` heads gives one moved to the source by the `key` heads.

    Each side is a chain of earlier heads, or none for the token itself. With a previous-token head
    on the key side, positive eigenvalues mean that the reader seeks the token it is at: the
    induction circuit. ValueError unless the layers increase, up to the reader's.
    """
    at = components.head(model.cfg, reader)
    left, right = (
        _moved(model, components.heads(model.cfg, (*side, at))[:-1]) for side in (query, key)
    )
    return FactoredMatrix(*left, *QK(model)[at].factors, *(factor.mT for factor in reversed(right)))


def K_composed_QK(model: GPT, reader_layer: int, writer_layer: int) -> FactoredMatrix:
    """`composed_QK` with one head on the key side, for all heads of two layers at once,
    [reader writer d_vocab d_vocab]. ValueError unless the writer's layer is the earlier one."""
    if not 0 <= writer_layer < reader_layer < model.cfg.n_layers:
        raise ValueError(
            f"the writer's layer must be before the reader's, and both among {model.cfg.n_layers}; "
            f"got writer {writer_layer}, reader {reader_layer}"
        )
    score = QK(model)[reader_layer, :, None].factors
    moved = OV(model).T[writer_layer].factors
    return FactoredMatrix(_embedding(model), *score, *moved, _embedding(model).T)


def virtual_weights(model: GPT, path: AnyPath) -> FactoredMatrix:
    """The product of weights along a path, from the weights that its start writes with to the
    weights that its end reads with.

    Starts: embed (W_E), pos (W_pos), a head such as L0H1 (W_O), an MLP such as MLP0 (W_out). Ends:
    L1H4.Q, L1H4.K, L1H4.V, an MLP (W_in), logits (W_U). So 'embed > L0H1 > logits' is a full OV
    circuit, and 'MLP0 > L1H2.K' the virtual weights of one pair. ValueError for a name that does
    not exist, and for one that comes before the name that it reads from.
    """
    path = components.path(model.cfg, path)
    names = [path.start, *map(str, path.heads), path.end]
    depths = [components.depth(model.cfg, name) for name in names]
    for (first, second), (a, b) in zip(pairwise(names), pairwise(depths), strict=True):
        if a >= b:
            raise ValueError(f"{second} comes before {first} or beside it and cannot read from it")
    if path.start == "pos" and model.cfg.shortformer:
        raise ValueError(
            "shortformer positions never enter the stream: heads alone read them, see positional_QK"
        )
    carried = (factor for at in path.heads for factor in OV(model)[at].factors)
    return FactoredMatrix(_written(model, path.start), *carried, _read(model, path.end))


def reads(model: GPT, what: Literal["Q", "K", "V"]) -> LayerHead:
    """W_Q / scale, W_K or W_V of every head, with the gain and the centring of its norm folded in.

    The scale is `attn_scale`, by default sqrt(d_head).
    """
    weights = _finite(f"W_{what}", getattr(model, f"W_{what}"))
    weights = weights / _score_scale(model) if what == "Q" else weights
    norms = [block.ln1 for block in model.blocks]
    return _stack(weights, [folded(norm, W) for norm, W in zip(norms, weights, strict=True)])


def writes(model: GPT) -> Float[Tensor, "layer head d_head d_model"]:
    """W_O of every head."""
    return _finite("W_O", model.W_O)


def unembedding(model: GPT) -> Float[Tensor, "d_model d_vocab"]:
    """W_U with the gain and the centring of the final norm folded in."""
    return folded(model.ln_final, _finite("W_U", model.W_U))


def folded(norm: nn.Module, W: Float[Tensor, "*lead d_model out"]) -> Float[Tensor, "*lead _ out"]:
    """A weight as the stream before a norm meets it: norm(x) W = x folded(W) / sigma + b W."""
    if not isinstance(norm, Norm):
        return W
    W = W if norm.w is None else _finite("w of a norm", norm.w)[:, None] * W
    return W - W.mean(-2, keepdim=True) if norm.centred else W


def _bias(block: Any, what: str) -> Float[Tensor, "head d_head"]:
    """What a head's query or key is of a stream that is all zero behind the norm's scale."""
    norm, attn = block.ln1, block.attn
    b = getattr(attn, f"b_{what}")
    through_norm = isinstance(norm, Norm) and norm.b is not None
    return b + norm.b @ getattr(attn, f"W_{what}") if through_norm else b


def _embedding(model: GPT) -> Float[Tensor, "d_vocab d_model"]:
    return _finite("W_E", model.W_E)


def _finite(name: str, W: Tensor) -> Tensor:
    """The weight; ValueError with the first index where it is no finite number."""
    if not W.sum(dtype=torch.promote_types(W.dtype, torch.float32)).isfinite():
        at = (~W.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name}{at} is {W[tuple(at)].item()}: a circuit of it means nothing")
    return W


def _neurons(model: GPT) -> Float[Tensor, "layer d_model d_mlp"]:
    W_in = _finite("W_in", model.W_in)
    norms = [block.ln2 for block in model.blocks]
    return _stack(W_in, [folded(norm, W) for norm, W in zip(norms, W_in, strict=True)])


def _stack(like: Tensor, layers: list[Tensor]) -> Tensor:
    return torch.stack(layers) if layers else like


def _score_scale(model: GPT) -> float:
    return model.cfg.attn_scale or math.sqrt(model.cfg.d_head)


def _moved(model: GPT, chain: Sequence[Head]) -> tuple[Tensor, ...]:
    """The factors of W_E W_OV^1 W_OV^2 ..."""
    each = OV(model)
    return (_embedding(model), *(factor for at in chain for factor in each[at].factors))


def _written(model: GPT, name: str) -> Float[Tensor, "written d_model"]:
    if name in ("embed", "pos"):
        return _embedding(model) if name == "embed" else _finite("W_pos", model.W_pos)
    if name.startswith("MLP"):
        return _finite("W_out", model.W_out)[components.mlp(model.cfg, name)]
    return writes(model)[components.head(model.cfg, name)]


def _read(model: GPT, name: str) -> Float[Tensor, "d_model read"]:
    if name == "logits":
        return unembedding(model)
    if name.startswith("MLP"):
        return _neurons(model)[components.mlp(model.cfg, name)]
    head, what = components.head_input(model.cfg, name)
    return reads(model, what)[head]  # type: ignore[arg-type]
