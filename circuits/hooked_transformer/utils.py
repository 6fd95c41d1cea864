"""The functions of transformer_lens.utils that scripts for small models use."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.hooked_transformer.instead import missing
from circuits.hooks import act_name
from circuits.model import mean_loss, token_loss


def get_act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """The full hook name: ("k", 6) and "k6" both give blocks.6.attn.hook_k. See act_name."""
    return act_name(name, layer, layer_type)


def to_numpy(tensor: Any) -> Any:
    """A tensor, parameter, list or number as a numpy array; arrays and booleans unchanged."""
    if isinstance(tensor, Tensor):
        return tensor.detach().cpu().numpy()
    return tensor if isinstance(tensor, np.ndarray | bool) else np.array(tensor)


def get_device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def get_corner(tensor: Any, n: int = 3) -> Any:
    """The first n entries of every dim of a tensor or of a FactoredMatrix's dense product."""
    corner = tensor[(slice(n),) * tensor.ndim]
    return corner if isinstance(corner, Tensor) else corner.AB


def lm_cross_entropy_loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    per_token: bool = False,
) -> Float[Tensor, "*batch_pos"]:
    """The next-token loss in nats: the mean, or [batch pos-1] with `per_token`. A loss whose token
    or next token is masked is 0 and does not count in the mean."""
    real = None if attention_mask is None else attention_mask.bool()
    return mean_loss(token_loss(logits, tokens), real, per_token)


def lm_accuracy(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"],
    per_token: bool = False,
) -> Tensor:  # fmt: skip
    """The share of positions whose likeliest next token is the right one; with `per_token` True or
    False for each position."""
    right = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    return right if per_token else right.float().mean()


def __getattr__(name: str) -> Any:
    raise missing("utils", name)
