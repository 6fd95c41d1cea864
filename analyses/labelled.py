"""The currency: labelled results, and what an analysis asks of a model."""

from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Num
from torch import Tensor
from xarray import DataArray

from circuits.components import Head


@runtime_checkable
class Model(Protocol):
    """What the behavioural analyses ask of a model; circuits.GPT has it."""

    cfg: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]: ...
    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any: ...


def per_head(
    values: Num[Tensor, "layer head *rest"], name: str, *dims: str, **attrs: Any
) -> DataArray:
    """A DataArray (layer, head, ...) with labels L1H4 as a coordinate and `attrs` for long_name,
    bounds, chance and source."""
    return DataArray(
        values.detach().cpu().numpy(),
        dims=("layer", "head", *dims),
        coords=head_coords(*values.shape[:2]),
        name=name,
        attrs=attrs,
    )


def head_coords(n_layers: int, n_heads: int) -> dict[str, Any]:
    """Coordinates of the dims layer and head: their numbers, and label (L1H4)."""
    labels = [[str(Head(layer, head)) for head in range(n_heads)] for layer in range(n_layers)]
    return {
        "layer": np.arange(n_layers),
        "head": np.arange(n_heads),
        "label": (("layer", "head"), np.array(labels, dtype=str).reshape(n_layers, n_heads)),
    }


def patterns(model: Model, tokens: Tensor, layer: int) -> Float[Tensor, "batch head dest src"]:
    """Attention patterns of one layer, in [0, 1], computed without gradients."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=f"blocks.{layer}.attn.hook_pattern")
    return cache[f"blocks.{layer}.attn.hook_pattern"]
