"""Circuits of the weights: QK and OV circuits, virtual heads, and virtual weights. No run is
needed. (Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html)

Vectors are rows: W_QK = W_Q W_K^T and W_OV = W_V W_O. All products stay factored.

Rotary positions. There is a QK circuit for every offset: see `turns`. The functions of QK take
`offset`, and without it they give the mean over all offsets.

Norms. A norm is x -> (x - mean) / sigma * w + b. Centring and the gain w are linear. They are
folded into the weights that read from the norm. b and the biases are left out. 1/sigma is a
positive number for each position of a run, and is left out too. So a circuit is exact up to one
positive factor for each position and norm: signs are exact, but the sizes of circuits behind
different norms cannot be compared. Without norms a circuit is exact, except that a run mixes a
smeared key with the key before. `model.QK` and `model.OV` are the plain products of the parameters,
without norms and scale.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.decomposition.turns import Offset, turns
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, AnyHead, AnyPath, Head, Norm, components

LayerHead = Float[Tensor, "layer head d_model d_head"]
Half = Literal["gate", "linear"]
"Which of the two reads of the neurons of a gated MLP; other MLPs have one, under the name of gate."


def QK(model: GPT, offset: Offset = None) -> FactoredMatrix:
    """W_Q W_K^T / scale, [layer head d_model d_model]: entry [i, j] is the score that direction i
    of a destination gives direction j of a source.

    With rotary positions W_Q R(offset) W_K^T / scale, and by default the mean over all offsets.
    ValueError for an offset in a model without rotary positions.
    """
    return FactoredMatrix(reads(model, "Q"), *turns(model, offset), reads(model, "K").mT)


def OV(model: GPT) -> FactoredMatrix:
    """W_V W_O, [layer head d_model d_model]: the output of a head for the stream at a source."""
    return FactoredMatrix(reads(model, "V"), writes(model))


def full_QK(model: GPT, offset: Offset = None) -> FactoredMatrix:
    """W_E W_QK W_E^T / scale, [layer head d_vocab d_vocab]: entry [query, key] is the score that a
    query token gives a key token, without positions and biases. With rotary positions at an offset,
    and by default in the mean over all offsets."""
    return FactoredMatrix(_embedding(model), *QK(model, offset).factors, _embedding(model).T)


def biased_QK(model: GPT, offset: Offset = None) -> FactoredMatrix:
    """(W_E W_Q + b_Q) (W_E W_K + b_K)^T / scale, [layer head d_vocab d_vocab]: `full_QK` with the
    biases of the head and of its norm. With biases a key token can have a high score for every
    query token.

    The 1/sigma of a norm is left out. In a run the biases are not divided by sigma, so with a norm
    the result is not exact. ValueError for a model without biases.
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
    R = turns(model, offset)
    return FactoredMatrix(*sides[0].factors, *R, *sides[1].T.factors)


def full_OV(model: GPT) -> FactoredMatrix:
    """W_E W_OV W_U, [layer head d_vocab d_vocab]: entry [source, out] is the rise of the logit of
    an out token when the head attends to a source token. The head reads the embedding."""
    return FactoredMatrix(_embedding(model), *OV(model).factors, unembedding(model))


def direct_path(model: GPT) -> FactoredMatrix:
    """W_E W_U, [d_vocab d_vocab]: the logits that a token alone gives the next token (bigrams)."""
    return FactoredMatrix(_embedding(model), unembedding(model))


def positional_QK(model: GPT) -> FactoredMatrix:
    """W_pos W_QK W_pos^T / scale, [layer head n_ctx n_ctx]: entry [dest, src] is the score that a
    destination gives a source for their positions alone. ValueError for a model without
    positions."""
    if not model.cfg.shortformer:
        W_pos = _finite("W_pos", model.W_pos)
        return FactoredMatrix(W_pos, *QK(model).factors, W_pos.T)
    # Shortformer positions are added behind the norm, so no norm is folded in.
    W_pos, W_Q, W_K = (_finite(name, getattr(model, name)) for name in ("W_pos", "W_Q", "W_K"))
    return FactoredMatrix(W_pos, W_Q / _score_scale(model), W_K.mT, W_pos.T)


def neuron_reads(model: GPT, half: Half = "gate") -> FactoredMatrix:
    """W_E W_in, [layer d_vocab d_mlp]: the input that a token gives each neuron through the
    embedding. In a gated MLP it is W_E W_gate, and W_E W_in for the half "linear". ValueError for
    an attention-only model, and for that half without gates. `virtual_weights` has the ways through
    a head ('embed > L0H1 > MLP0') and from the neurons to the logits ('MLP0 > logits')."""
    if half == "linear" and not model.cfg.gated_mlp:
        raise ValueError("the MLPs have no linear half: gated_mlp=False")
    return FactoredMatrix(_embedding(model), _neurons(model, half))


def virtual_OV(model: GPT, chain: Sequence[AnyHead]) -> FactoredMatrix:
    """W_OV of the virtual head that a chain of heads makes, [d_model d_model]: W_OV^1 W_OV^2 ...

    The first head reads the stream. Each later head reads the output of the head before it.
    ValueError unless the layers increase.
    """
    found = components.heads(model.cfg, chain)
    if not found:
        raise ValueError("a virtual head is made of one head or more, got none")
    return FactoredMatrix(*_carried(model, found))


def composed_QK(
    model: GPT,
    reader: AnyHead,
    *,
    query: Sequence[AnyHead] = (),
    key: Sequence[AnyHead] = (),
    offset: Offset = None,
) -> FactoredMatrix:
    """W_E W_OV^query W_QK (W_E W_OV^key)^T / scale, [d_vocab d_vocab]: the score that one token
    gives another. The `query` heads have moved the first to the destination, and the `key` heads
    the second to the source.

    Each side is a chain of earlier heads. Without heads the token itself is at this position. With
    a previous-token head on the key side, positive eigenvalues mean that the reader attends to the
    position after an earlier copy of its own token: the induction circuit. ValueError unless the
    layers increase, up to the reader's layer. With rotary positions the reader's circuit is the
    circuit at `offset`, by default the mean over all offsets.
    """
    at = components.head(model.cfg, reader)
    before, after = (components.heads(model.cfg, (*side, at))[:-1] for side in (query, key))
    moved = (_embedding(model), *_carried(model, after))
    return FactoredMatrix(
        _embedding(model),
        *_carried(model, before),
        reads(model, "Q")[at],
        *turns(model, offset, lead=0),
        reads(model, "K")[at].mT,
        *(factor.mT for factor in reversed(moved)),
    )


def K_composed_QK(
    model: GPT, reader_layer: int, writer_layer: int, offset: int | None = None
) -> FactoredMatrix:
    """`composed_QK` with one head on the key side, for all heads of two layers at once,
    [reader writer d_vocab d_vocab]; with rotary positions at an offset, by default in the mean over
    all offsets. ValueError unless the writer's layer is the earlier one."""
    if not 0 <= writer_layer < reader_layer < model.cfg.n_layers:
        raise ValueError(
            f"the writer's layer must be before the reader's, and both among {model.cfg.n_layers}; "
            f"got writer {writer_layer}, reader {reader_layer}"
        )
    W_Q, W_K = (reads(model, what)[reader_layer, :, None] for what in ("Q", "K"))
    score = (W_Q, *turns(model, offset), W_K.mT)
    moved = OV(model).T[writer_layer].factors
    return FactoredMatrix(_embedding(model), *score, *moved, _embedding(model).T)


def virtual_weights(model: GPT, path: AnyPath) -> FactoredMatrix:
    """The product of the weights along a path, from the weights with which its start writes to the
    weights with which its end reads.

    Starts: embed (W_E), pos (W_pos), a head such as L0H1 (W_O), an MLP such as MLP0 (W_out). Ends:
    L1H4.Q, L1H4.K, L1H4.V, an MLP (W_in; of a gated MLP W_gate, and W_in for MLP0.linear), logits
    (W_U). So 'embed > L0H1 > logits' is a full OV
    circuit, and 'MLP0 > L1H2.K' the virtual weights of one pair. ValueError for a name that does
    not exist, and for a component that does not come after the component that it reads.
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
    carried = _carried(model, path.heads)
    return FactoredMatrix(_written(model, path.start), *carried, _read(model, path.end))


def reads(model: GPT, what: Literal["Q", "K", "V"]) -> LayerHead:
    """W_Q / scale, W_K or W_V of every head, with the gain and the centring of its norm folded in.

    The scale is `attn_scale`, by default sqrt(d_head).
    """
    weights = _finite(f"W_{what}", getattr(model, f"W_{what}"))
    weights = weights / _score_scale(model) if what == "Q" else weights
    norms = [block.ln1 for block in model.blocks]
    return _stack(weights, [fold_norm(norm, W) for norm, W in zip(norms, weights, strict=True)])


def writes(model: GPT) -> Float[Tensor, "layer head d_head d_model"]:
    """W_O of every head."""
    return _finite("W_O", model.W_O)


def unembedding(model: GPT) -> Float[Tensor, "d_model d_vocab"]:
    """W_U with the gain and the centring of the final norm folded in."""
    return fold_norm(model.ln_final, _finite("W_U", model.W_U))


def fold_norm(
    norm: nn.Module, W: Float[Tensor, "*lead d_model out"]
) -> Float[Tensor, "*lead _ out"]:
    """A weight with its norm folded in, so that norm(x) W = x fold_norm(W) / sigma + b W."""
    if not isinstance(norm, Norm):
        return W
    W = W if norm.w is None else _finite("w of a norm", norm.w)[:, None] * W
    return W - W.mean(-2, keepdim=True) if norm.centred else W


def _bias(block: Any, what: str) -> Float[Tensor, "head d_head"]:
    """The constant part of a head's query or key: its own bias, and the bias of its norm."""
    norm, attn = block.ln1, block.attn
    b = getattr(attn, f"b_{what}")
    through_norm = isinstance(norm, Norm) and norm.b is not None
    return b + norm.b @ getattr(attn, f"W_{what}") if through_norm else b


def _embedding(model: GPT) -> Float[Tensor, "d_vocab d_model"]:
    return _finite("W_E", model.W_E)


def _finite(name: str, W: Tensor) -> Tensor:
    """The weight itself. ValueError with the first index where it is not finite."""
    if not W.sum(dtype=torch.promote_types(W.dtype, torch.float32)).isfinite():
        at = (~W.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"{name}{at} is {W[tuple(at)].item()}: a circuit of it means nothing")
    return W


def _neurons(model: GPT, half: Half) -> Float[Tensor, "layer d_model d_mlp"]:
    name = "W_gate" if model.cfg.gated_mlp and half == "gate" else "W_in"
    weights = _finite(name, getattr(model, name))
    norms = [block.ln2 for block in model.blocks]
    return _stack(weights, [fold_norm(norm, W) for norm, W in zip(norms, weights, strict=True)])


def _stack(like: Tensor, layers: list[Tensor]) -> Tensor:
    return torch.stack(layers) if layers else like


def _score_scale(model: GPT) -> float:
    return model.cfg.attn_scale or math.sqrt(model.cfg.d_head)


def _carried(model: GPT, chain: Sequence[Head]) -> tuple[Tensor, ...]:
    """The factors of W_OV^1 W_OV^2 ..."""
    return tuple(factor for at in chain for factor in OV(model)[at].factors)


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
        layer, linear = components.mlp_input(model.cfg, name)
        return _neurons(model, "linear" if linear else "gate")[layer]
    head, what = components.head_input(model.cfg, name)
    return reads(model, what)[head]  # type: ignore[arg-type]
