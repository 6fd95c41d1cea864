"""The key-value cache with the names of TransformerLens 2 and 3."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.model import GPTConfig, KeyValueCache, LayerPast, Sources


@dataclass(frozen=True)
class HookedTransformerKeyValueCacheEntry:
    """The keys and values of one layer's heads for the tokens read so far."""

    past_keys: Sources
    past_values: Sources
    frozen: bool


class HookedTransformerKeyValueCache(KeyValueCache):
    """A KeyValueCache that is made with a config and a device."""

    @classmethod
    def init_cache(  # type: ignore[override]
        cls, cfg: GPTConfig, device: Any = None, batch_size: int = 1
    ) -> "HookedTransformerKeyValueCache":
        """An empty cache for a model of this config and `batch_size` rows."""
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
        """The keys and values of each layer."""
        return [self[layer] for layer in range(len(self.layers))]

    @property
    def previous_attention_mask(self) -> Bool[Tensor, "batch src"]:
        """True where a position holds a token and no padding."""
        ones = torch.ones(self.batch_size, self.n, dtype=torch.bool, device=self._empty.device)
        return ones if self.real is None else self.real

    def __getitem__(self, layer: int) -> HookedTransformerKeyValueCacheEntry:  # type: ignore[override]
        past: LayerPast = self.layers[layer]
        k, v = (past.held.get(name, self._empty)[:, : self.n] for name in "kv")
        return HookedTransformerKeyValueCacheEntry(k, v, self.frozen)


TransformerLensKeyValueCache = HookedTransformerKeyValueCache
TransformerLensKeyValueCacheEntry = HookedTransformerKeyValueCacheEntry
