"""Simplified weights: a new model with the same log-probabilities.

The effect of a gain, a bias or a mean is folded into the weights next to it. Each function returns
a new model and does not change its argument. The names of the flags are TransformerLens's, which
folds by default. (TransformerLens, `ProcessWeights`; Elhage et al. 2021 note that only such
products matter, https://transformer-circuits.pub/2021/framework/index.html)
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from circuits.model.gpt import GPT
from circuits.model.layers import Norm


def process_weights(
    model: GPT,
    *,
    fold_ln: bool = True,
    center_writing_weights: bool = True,
    center_unembed: bool = True,
    fold_value_biases: bool = True,
) -> GPT:
    """A model with the same log-probabilities, after the four functions below in turn. ValueError
    if a step is not possible for this model: set its flag to False."""
    steps = {
        fold_layer_norm: fold_ln,
        center_writing: center_writing_weights,
        center_unembedding: center_unembed,
        fold_values: fold_value_biases,
    }
    processed = _copy(model)
    for step, wanted in steps.items():
        processed = step(processed) if wanted else processed
    return processed


@torch.no_grad()
def fold_layer_norm(model: GPT) -> GPT:
    """Fold the gain and bias of each norm into the weights that read from it: (x w + b) W + c =
    x (w W) + (b W + c). LN becomes LNPre and RMS becomes RMSPre. Logits and patterns stay equal.

    ValueError for shortformer positions, which are added after the gain.
    """
    kind = model.cfg.normalization_type
    if kind not in ("LN", "RMS"):
        return _copy(model)
    if model.cfg.shortformer and model.cfg.n_layers:
        raise ValueError("shortformer positions are added after the norm: its gain does not fold "
                         "into W_Q and W_K, which read both")  # fmt: skip
    folded = _copy(model, normalization_type=f"{kind}Pre")
    for old, new in zip(model.blocks, folded.blocks, strict=True):
        for what in "QKV":
            _fold(old.ln1, new.attn, f"W_{what}", f"b_{what}")
        if new.mlp is not None:
            for read in ("gate", "in") if model.cfg.gated_mlp else ("in",):
                _fold(old.ln2, new.mlp, f"W_{read}", f"b_{read}")
            if model.cfg.act_fn == "solu_ln":
                _fold(old.mlp.ln, new.mlp, "W_out", "b_out")
    _fold(model.ln_final, folded.unembed, "W_U", "b_U")
    return folded


@torch.no_grad()
def center_writing(model: GPT) -> GPT:
    """Subtract the mean over d_model from every weight that writes to the stream. The norms
    subtract it anyway: logits stay equal, and the stream has mean 0. Sinusoids become learned
    positions.

    ValueError for a norm that subtracts no mean.
    """
    cfg = model.cfg
    if cfg.normalization_type not in ("LN", "LNPre"):
        raise ValueError(f"normalization_type={cfg.normalization_type!r} does not subtract the "
                         f"mean of the stream: logits would change")  # fmt: skip
    learned: dict[str, Any] = {}
    if cfg.positional_embedding_type == "sinusoidal":
        learned = {"positional_embedding_type": "standard", "sinusoid_base": None,
                   "sinusoid_scale": None}  # fmt: skip
    centred = _copy(model, **learned)
    for name, weight in centred.named_parameters():
        short = name.rpartition(".")[2]
        writes = short in ("W_E", "W_O", "b_O", "W_out", "b_out")
        if writes or (short == "W_pos" and not cfg.shortformer):
            weight -= weight.mean(-1, keepdim=True)
    return centred


@torch.no_grad()
def center_unembedding(model: GPT) -> GPT:
    """Subtract the mean over the vocabulary from W_U and b_U. The mean logit becomes 0;
    log-probabilities stay equal."""
    centred = _copy(model)
    for weight in centred.unembed.parameters():
        weight -= weight.mean(-1, keepdim=True)
    return centred


@torch.no_grad()
def fold_values(model: GPT) -> GPT:
    """Fold b_V into b_O: attention sums to 1, so a head always writes b_V W_O. Logits stay equal;
    b_V becomes 0."""
    folded = _copy(model)
    for block in folded.blocks:
        attn = block.attn
        if attn.b_V is not None:
            attn.b_O += (attn.b_V[:, None] @ attn.W_O).sum((0, 1))
            attn.b_V.zero_()
    return folded


def _fold(norm: nn.Module, reader: nn.Module, W: str, b: str) -> None:
    weight: Tensor = getattr(reader, W)
    if isinstance(norm, Norm) and norm.b is not None:
        bias: Tensor = getattr(reader, b)
        bias += norm.b @ weight
    if isinstance(norm, Norm) and norm.w is not None:
        weight *= norm.w[:, None]


def _copy(model: GPT, **fields: Any) -> GPT:
    """A copy of the model with other fields of its config, and the weights that this config has."""
    new = GPT(replace(model.cfg, **fields), model.tokenizer).to(model.W_E).train(model.training)
    new.bos, new.trained_ctx = model.bos, model.trained_ctx
    weights = dict(model.state_dict())
    if model.cfg.embeds_positions:
        weights["pos_embed.W_pos"] = model.W_pos  # a parameter or sinusoids
    new.load_state_dict({name: weights[name] for name in new.state_dict()})
    return new
