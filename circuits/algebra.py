"""Weights only: the circuits of a head, and how a later head reads what an earlier one wrote.

Norms are folded in as far as they are linear: gain, centring, never the 1/sigma of each position,
which scales whole rows and so moves no eigenvalue's sign. Everything stays factored.
(Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html)
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.factored import FactoredMatrix
from circuits.layers import Norm
from circuits.model import GPT


def full_OV(model: GPT) -> FactoredMatrix:
    """W_E W_V W_O W_U, [layer head d_vocab d_vocab]: entry [source, out] is how attending to a
    source raises the logit of an out token, read straight from the embedding."""
    read = _read_by_layer(model)
    return FactoredMatrix(read[:, None] @ model.W_V, model.W_O @ unembedding(model))


def full_QK(model: GPT) -> FactoredMatrix:
    """W_E W_Q W_K^T W_E^T / scale, [layer head d_vocab d_vocab]: entry [query, key] is the score
    that a query token gives a key token, positions and biases aside."""
    read = _read_by_layer(model)[:, None]
    scale = model.cfg.attn_scale or math.sqrt(model.cfg.d_head)
    return FactoredMatrix(read @ (model.W_Q / scale), (read @ model.W_K).mT)


def K_composed_QK(model: GPT, reader_layer: int, writer_layer: int) -> FactoredMatrix:
    """W_E W_QK (W_E W_OV)^T / scale, [reader writer d_vocab d_vocab]: entry [query, moved] is the
    score that a query token gives a position to which the writer head has moved a token.

    Positive eigenvalues mean that the reader seeks the token it is at: the induction circuit.
    ValueError unless the writer's layer is before the reader's.
    """
    if not 0 <= writer_layer < reader_layer < model.cfg.n_layers:
        raise ValueError(
            f"the writer's layer must be before the reader's, and both among {model.cfg.n_layers}; "
            f"got writer {writer_layer}, reader {reader_layer}"
        )
    reader, writer = model.blocks[reader_layer], model.blocks[writer_layer]
    query = _read(reader.ln1, model.W_E) @ (reader.attn.W_Q / reader.attn.scale)
    moved = _read(writer.ln1, model.W_E) @ writer.attn.W_V
    key = _read(reader.ln1, writer.attn.W_O)[None] @ reader.attn.W_K[:, None]  # reader writer e e
    return FactoredMatrix(query[:, None], (moved[None] @ key).mT)


def unembedding(model: GPT) -> Float[Tensor, "d_model d_vocab"]:
    """W_U with gain and centring of the final norm folded in: what a write adds to the logits, up
    to the norm's 1/sigma."""
    return _read(model.ln_final, torch.eye(model.cfg.d_model, dtype=model.W_U.dtype)) @ model.W_U


def _read_by_layer(model: GPT) -> Float[Tensor, "layer d_vocab d_model"]:
    """The embedding as the first norm of each block hands it on."""
    rows = [_read(block.ln1, model.W_E) for block in model.blocks]
    return torch.stack(rows) if rows else model.W_E.new_empty(0, *model.W_E.shape)


def _read(norm: nn.Module, rows: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
    """Vectors of the stream as a norm hands them on, less its 1/sigma and bias."""
    if not isinstance(norm, Norm):
        return rows
    rows = rows - rows.mean(-1, keepdim=True) if norm.centred else rows
    return rows if norm.w is None else rows * norm.w
