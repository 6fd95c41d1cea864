"""ActivationCache: a Cache of ours that has the decompositions of TransformerLens's."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.hooked_transformer.instead import missing
from circuits.hooks import ONLY_IN_ACTIVATION_CACHE, Cache
from circuits.io import bridge
from circuits.model import GPT


class ActivationCache(Cache):
    """The activations of one run by hook name or short name: `cache["pattern", 1]`. All analyses
    of ours take it, and its decompositions are TransformerLens's, which is imported when one is
    called. As theirs do, `to`, `remove_batch_dim` and `compute_head_results` change it in place.

    KeyError for what was not kept, with the reason. The model is not kept alive.
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
        """The activations by full hook name: the very dict, which can be written to."""
        return self._activations

    def compute_head_results(self) -> None:
        """Keep what each head writes, `cache["result", layer]` [batch pos head d_model], from here
        on: z W_O."""
        theirs = self._theirs()
        theirs.compute_head_results()
        self._activations.update(theirs.cache_dict)

    def to(
        self, target: torch.device | torch.dtype | str, move_model: bool = False
    ) -> "ActivationCache":
        """The cache itself, with every floating-point activation moved or converted, and the model
        too if that is asked for."""
        self._activations.update(super().to(target))
        if move_model and self.model is not None:
            self.model.to(target)
        return self

    def remove_batch_dim(self) -> "ActivationCache":
        """The cache itself, now without its batch dim of size 1; ValueError if it is larger, and
        nothing where it is gone."""
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
            raise ValueError("the model of this run is gone: keep it as long as its caches")
        return bridge.activation_cache(self, self.model, has_batch_dim=self.has_batch_dim)
