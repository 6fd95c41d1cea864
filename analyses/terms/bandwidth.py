"""The residual stream as a channel: who writes how much, who reads it, who shares its directions.

(Elhage et al. 2021, "The residual stream as a communication channel",
https://transformer-circuits.pub/2021/framework/index.html)
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.labelled import to_numpy
from circuits import algebra, residual
from circuits.model import GPT, components

EXCLUSIVE = 0.9
"From this share on, a joint direction is used by one of the two matrices alone."


def written(model: GPT, tokens: Int[Tensor, "1 pos"]) -> DataArray:
    """The norm of what each component writes at each position, (component, pos), at least 0.

    attrs["error"] is the largest entry by which their sum misses the final stream.
    """
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        parts = residual.components(model, cache)
    return DataArray(
        to_numpy(parts.stack[:, 0].norm(dim=-1)),
        dims=("component", "pos"),
        coords={"component": list(parts)},
        name="written",
        attrs={"long_name": "norm of what is written", "error": float(parts.remainder.abs().max())},
    )


def virtual_weights(model: GPT) -> DataArray:
    """How strongly each reader reads each writer, (writer, reader): log2 of
    ||W_out W_in|| / (||W_out|| ||W_in||) over 1 / sqrt(d_model), which random matrices give.

    0 is chance, 1 twice as much; NaN where the reader does not come later, or is zero. A writer is
    the embedding, positions that enter the stream, a head's W_O or an MLP's W_out; a reader a
    head's W_Q, W_K or W_V, an MLP's W_in or the unembedding, with their norms folded in.
    """
    cfg = model.cfg
    heads = [str(head) for head in components.every_head(cfg)]
    mlps = [f"MLP{layer}" for layer in range(cfg.n_layers if cfg.d_mlp else 0)]
    in_stream = not cfg.shortformer and cfg.positional_embedding_type != "none"
    writers = ["embed", *(["pos"] if in_stream else []), *heads, *mlps]
    readers = [*(f"{head}.{via}" for head in heads for via in "QKV"), *mlps, "logits"]
    by_depth = {name: components.depth(cfg, name) for name in (*writers, *readers)}
    writers.sort(key=by_depth.__getitem__)
    readers.sort(key=by_depth.__getitem__)
    with (
        torch.no_grad()
    ):  # ||A B||^2 = <A^T A, B B^T>: one Gram matrix each instead of all products
        written = [
            algebra.virtual_weights(model, f"{name} > logits").factors[0] for name in writers
        ]
        read = [algebra.virtual_weights(model, f"embed > {name}").factors[-1] for name in readers]
        outer = torch.stack([_gram(W.mT).flatten() for W in written])
        inner = torch.stack([_gram(W).flatten() for W in read])
        values = (outer @ inner.T).clamp(min=0).sqrt().log2() + 0.5 * np.log2(cfg.d_model)
    for i, j in np.ndindex(len(writers), len(readers)):
        if by_depth[writers[i]] >= by_depth[readers[j]] or not values[i, j].isfinite():
            values[i, j] = torch.nan
    return DataArray(
        to_numpy(values),
        dims=("writer", "reader"),
        coords={"writer": writers, "reader": readers},
        name="virtual weights",
        attrs={"long_name": "log2 of virtual weights over chance", "chance": 0.0},
    )


def _gram(W: Float[Tensor, "d_model read"]) -> Float[Tensor, "d_model d_model"]:
    """W W^T of a weight scaled to norm 1; NaN where it is zero."""
    W = W.double()
    W = W / torch.linalg.matrix_norm(W)
    return W @ W.T


def spectra(model: GPT) -> DataArray:
    """PCA of the rows of W_E and of the columns of W_U, (matrix, direction): the share of the
    variance over tokens in each principal direction, largest first; each row sums to 1."""
    values = [_eigen(_covariance(W))[0].flip(0) for W in _token_matrices(model)]
    return DataArray(
        to_numpy(torch.stack(values)),
        dims=("matrix", "direction"),
        coords={"matrix": ["W_E", "W_U"], "direction": np.arange(model.cfg.d_model)},
        name="spectra",
        attrs={"long_name": "share of variance", "bounds": (0.0, 1.0)},
    )


def joint_share(model: GPT) -> DataArray:
    """Of the variance of each joint principal direction of W_E and W_U, each scaled to the same
    size, the share that is W_E's: (direction), in [0, 1], smallest first.

    1/2: both use it alike, as at initialisation; 1 or 0: one of them alone. Directions that hold
    no variance are left out. (The paper's footnote on the two matrices' subspaces.)
    """
    ours, theirs = (_covariance(W) for W in _token_matrices(model))
    together, directions = _eigen(ours + theirs)
    share = ((directions.T @ ours) * directions.T).sum(1) / together
    share = share[together > 1e-9].clamp(0, 1).sort().values
    return DataArray(
        to_numpy(share),
        dims="direction",
        name="joint share",
        attrs={"long_name": "share of the embedding", "bounds": (0.0, 1.0), "chance": 0.5},
    )


def exclusive(share: DataArray) -> int:
    """How many directions of `joint_share` one of the two matrices uses nearly alone."""
    return int(((share > EXCLUSIVE) | (share < 1 - EXCLUSIVE)).sum())


def neuron_cosines(model: GPT) -> DataArray:
    """cos(w_in, w_out) of every neuron, (layer, neuron), in [-1, 1]: below 0 it takes out of the
    stream what it reads there. ValueError for an attention-only model."""
    if model.cfg.d_mlp is None:
        raise ValueError("the model is attention-only: it has no neurons")
    with torch.no_grad():
        cosine = torch.cosine_similarity(model.W_in.mT, model.W_out, dim=-1)
    return DataArray(
        to_numpy(cosine),
        dims=("layer", "neuron"),
        name="neuron cosines",
        attrs={"long_name": "cos(w_in, w_out)", "bounds": (-1.0, 1.0), "chance": 0.0},
    )


def _token_matrices(model: GPT) -> tuple[Tensor, Tensor]:
    return model.W_E.detach().double(), model.W_U.detach().double().T


def _covariance(W: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, "d_model d_model"]:
    """Of the rows, scaled to trace 1."""
    centred = W - W.mean(0)
    return centred.T @ centred / centred.square().sum()


def _eigen(covariance: Tensor) -> tuple[Tensor, Tensor]:
    if not covariance.isfinite().all():
        raise ValueError("W_E or W_U has no variance over tokens, or holds numbers that are not "
                         "finite")  # fmt: skip
    values, vectors = torch.linalg.eigh(covariance)
    return values.clamp(min=0), vectors
