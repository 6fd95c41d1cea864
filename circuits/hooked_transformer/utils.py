"""The few of transformer_lens.utils that code for small models uses."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.hooked_transformer.instead import missing
from circuits.hooks import act_name
from circuits.model import mean_loss, token_loss


def get_act_name(name: str, layer: int | str | None = None, layer_type: str | None = None) -> str:
    """Full hook name of a short one: ("k", 6) and "k6" are blocks.6.attn.hook_k. See act_name."""
    return act_name(name, layer, layer_type)


def to_numpy(tensor: Any) -> Any:
    """A tensor, parameter, list or number as a numpy array; arrays and booleans as they are."""
    if isinstance(tensor, Tensor):
        return tensor.detach().cpu().numpy()
    return tensor if isinstance(tensor, np.ndarray | bool) else np.array(tensor)


def get_device() -> torch.device:
    """CUDA's device where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def get_corner(tensor: Any, n: int = 3) -> Any:
    """The first n entries of every dim of a tensor or FactoredMatrix, this as its product."""
    corner = tensor[(slice(n),) * tensor.ndim]
    return corner if isinstance(corner, Tensor) else corner.AB


def lm_cross_entropy_loss(
    logits: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    per_token: bool = False,
) -> Float[Tensor, "*batch_pos"]:
    """Next-token loss in nats, a mean or [batch pos-1]; with a mask, 0 where a token or the next
    is masked out, and the mean of the others."""
    real = None if attention_mask is None else attention_mask.bool()
    return mean_loss(token_loss(logits, tokens), real, per_token)


def lm_accuracy(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"],
    per_token: bool = False,
) -> Tensor:  # fmt: skip
    """How often the likeliest next token is the next one: a share, or true or false for each."""
    right = logits[:, :-1].argmax(-1) == tokens[:, 1:]
    return right if per_token else right.float().mean()


def __getattr__(name: str) -> Any:
    raise missing("utils", name)
