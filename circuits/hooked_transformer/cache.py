"""ActivationCache: a Cache of ours that has the decompositions of TransformerLens's."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from circuits import bridge
from circuits.cache import Cache
from circuits.model import GPT

BY_THEIRS = (
    "accumulated_resid", "apply_ln_to_stack", "decompose_resid", "get_full_resid_decomposition",
    "get_neuron_results", "logit_attrs", "stack_activation", "stack_head_results",
    "stack_neuron_results",
)  # fmt: skip
"What TransformerLens computes from the same tensors; `circuits.residual` gives equal results."
_INSTEAD = {
    "logit_lens": "circuits.residual.logit_lens(model, cache)",
    "apply_slice_to_batch_dim": "run_with_cache(tokens[rows])",
    "toggle_autodiff": "torch.set_grad_enabled(mode): it is a switch of the whole process",
}


class ActivationCache(Cache):
    """The activations of one run by hook name or short name: `cache["pattern", 1]`. All analyses
    of ours take it, and its decompositions are TransformerLens's, which is imported when one is
    called.

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
        points = {name: point.per_head for name, point in model.hook_dict.items()}
        super().__init__(cache_dict, model.cfg.n_layers, points, asked, model)
        self.has_batch_dim = has_batch_dim
        self.has_embed = "embed" in self
        self.has_pos_embed = "pos_embed" in self and not model.cfg.shortformer

    @property
    def cache_dict(self) -> dict[str, Tensor]:
        """The activations by full hook name, in a dict of its own."""
        return dict(self)

    def compute_head_results(self) -> None:
        """Keep what each head writes, `cache["result", layer]` [batch pos head d_model], from here
        on: z W_O."""
        theirs = self._theirs()
        theirs.compute_head_results()
        self._activations |= theirs.cache_dict

    def to(self, target: torch.device | torch.dtype | str) -> "ActivationCache":
        """The same cache with every floating-point activation moved or converted."""
        return self._with(super().to(target), self.has_batch_dim)

    def remove_batch_dim(self) -> "ActivationCache":
        """The same cache without its batch dim of size 1, or itself where that is gone; ValueError
        if it is larger."""
        return self._with(super().remove_batch_dim(), False) if self.has_batch_dim else self

    def __getattr__(self, name: str) -> Any:
        if name in BY_THEIRS:
            return getattr(self._theirs(), name)
        hint = f"; write {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise AttributeError(f"ActivationCache has no {name!r}{hint}")

    def _theirs(self) -> Any:
        if self.model is None:
            raise ValueError("the model of this run is gone: keep it as long as its caches")
        return bridge.activation_cache(self, self.model, has_batch_dim=self.has_batch_dim)

    def _with(self, cache: Cache, has_batch_dim: bool) -> "ActivationCache":
        if self.model is None:
            raise ValueError("the model of this run is gone: keep it as long as its caches")
        return ActivationCache(cache, self.model, has_batch_dim, asked=self._asked)
