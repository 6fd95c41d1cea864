"""The key-value cache by the names that TransformerLens 2 and 3 have for it."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.model import GPTConfig, KeyValueCache, LayerPast, Sources


@dataclass(frozen=True)
class HookedTransformerKeyValueCacheEntry:
    """What a layer has read so far, as it is now: its heads' keys and values."""

    past_keys: Sources
    past_values: Sources
    frozen: bool


class HookedTransformerKeyValueCache(KeyValueCache):
    """A KeyValueCache that is made with a device, which is where the model lies anyway."""

    @classmethod
    def init_cache(  # type: ignore[override]
        cls, cfg: GPTConfig, device: Any = None, batch_size: int = 1
    ) -> "HookedTransformerKeyValueCache":
        """An empty one for a model of this config, and for so many rows."""
        if isinstance(device, int) and not isinstance(device, bool) and batch_size == 1:
            raise ValueError(f"the second argument is the device: write init_cache(cfg, cfg.device,"
                             f" batch_size={device})")  # fmt: skip
        made = cls(cfg.n_layers, batch_size)
        made._empty = torch.empty(batch_size, 0, cfg.n_heads, cfg.d_head, device=device)
        return made

    def __init__(self, n_layers: int, batch_size: int = 1) -> None:
        super().__init__(n_layers, batch_size)
        self._empty = torch.empty(batch_size, 0, 0, 0)

    @property
    def entries(self) -> list[HookedTransformerKeyValueCacheEntry]:
        """Keys and values of each layer, to be read."""
        return [self[layer] for layer in range(len(self.layers))]

    @property
    def previous_attention_mask(self) -> Bool[Tensor, "batch src"]:
        """Which positions hold tokens and no pads."""
        ones = torch.ones(self.batch_size, self.n, dtype=torch.bool, device=self._empty.device)
        return ones if self.real is None else self.real

    def __getitem__(self, layer: int) -> HookedTransformerKeyValueCacheEntry:  # type: ignore[override]
        past: LayerPast = self.layers[layer]
        k, v = (past.held.get(name, self._empty)[:, : self.n] for name in "kv")
        return HookedTransformerKeyValueCacheEntry(k, v, self.frozen)


TransformerLensKeyValueCache = HookedTransformerKeyValueCache
TransformerLensKeyValueCacheEntry = HookedTransformerKeyValueCacheEntry
