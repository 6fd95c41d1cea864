"""ActivationCache: a Cache with the decompositions of TransformerLens's ActivationCache."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.hooked_transformer.instead import missing
from circuits.hooks import ONLY_IN_ACTIVATION_CACHE, Cache
from circuits.io import bridge
from circuits.model import GPT


class ActivationCache(Cache):
    """The activations of one run by hook name or short name: `cache["pattern", 1]`.

    `analyses` takes it. Its decompositions come from TransformerLens, which is imported at the
    first call. `to`, `remove_batch_dim` and `compute_head_results` change the cache in place.
    KeyError, with the reason, for an activation that was not kept. The cache does not keep the
    model in memory.
    """

    def __init__(
        self,
        cache_dict: Mapping[str, Tensor],
        model: GPT,
        has_batch_dim: bool = True,
        *,
        asked: Sequence[str] | None = None,
    ) -> None:
        rare = model._only_when_named()
        super().__init__(cache_dict, model.cfg.n_layers, rare, asked, model)
        self.has_batch_dim = has_batch_dim
        self.has_embed = "embed" in self
        self.has_pos_embed = "pos_embed" in self and not model.cfg.shortformer

    @property
    def cache_dict(self) -> dict[str, Tensor]:
        """The activations by full hook name: the cache's own dict, so writing changes the cache."""
        return self._activations

    def compute_head_results(self) -> None:
        """Add each head's output z W_O to the cache: `cache["result", layer]`
        [batch pos head d_model]."""
        theirs = self._theirs()
        theirs.compute_head_results()
        self._activations.update(theirs.cache_dict)

    def to(
        self, target: torch.device | torch.dtype | str, move_model: bool = False
    ) -> "ActivationCache":
        """Move or convert every floating-point activation, and the model with `move_model`; returns
        the cache itself."""
        self._activations.update(super().to(target))
        if move_model and self.model is not None:
            self.model.to(target)
        return self

    def remove_batch_dim(self) -> "ActivationCache":
        """Drop the batch dim, of size 1, and return the cache itself; ValueError for a larger batch
        dim."""
        if self.has_batch_dim:
            super().remove_batch_dim()
            self.has_batch_dim = False
        return self

    def __getattr__(self, name: str) -> Any:
        if name in ONLY_IN_ACTIVATION_CACHE:
            return getattr(self._theirs(), name)
        raise missing("ActivationCache", name)

    def _theirs(self) -> Any:
        if self.model is None:
            raise ValueError("the model of this run is deleted: keep it as long as its caches")
        return bridge.activation_cache(self, self.model, has_batch_dim=self.has_batch_dim)
