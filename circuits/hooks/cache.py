"""Cache: the activations that one run kept, read-only, under full and short names."""

import difflib
import re
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

CacheKey = str | tuple[str, int | str | None] | tuple[str, int | str | None, str]

_IN_ATTN = {"q", "k", "v", "z", "rot_q", "rot_k", "attn_scores", "pattern", "result"}
_IN_MLP = {"pre", "pre_linear", "mid", "post"}
_IN_NORM = {"scale", "normalized"}
_ALIASES = {"attn": "pattern", "attn_logits": "attn_scores", "key": "k", "query": "q", "value": "v",
            "mlp_pre": "pre", "mlp_mid": "mid", "mlp_post": "post"}  # fmt: skip
_PLACES = {"a": "attn", "attention": "attn", "m": "mlp", "b": "", "block": "", "blocks": ""}
CACHE_NAMES = {"hook_pos_embed": "hook_shortformer_pos_embed"}
"""The name under which a cache keeps an activation, where it is not the name of the hook point.
Other tools would take hook_pos_embed for a part of the stream; shortformer positions never enter
it. The cache and the model accept both names."""
_HOOK_NAMES = {kept: own for own, kept in CACHE_NAMES.items()}


def act_name(name: str, layer: int | str | None = None, part: str | None = None) -> str:
    """The full hook name for a short name. TransformerLens uses the same short names.

    ("pattern", 3) and "pattern3" mean blocks.3.attn.hook_pattern. ("scale", 0, "ln1") and
    "scale0ln1" mean blocks.0.ln1.hook_scale. "scale" alone means ln_final.hook_scale, and "embed"
    means hook_embed. A full name comes back unchanged.
    """
    if "." in name or name.startswith("hook_"):
        return _HOOK_NAMES.get(name, name)
    joined = re.fullmatch(r"([a-z_]+)(\d+)([a-z]\w*)?", name)
    if joined is not None:
        name, layer, part = joined.groups()
    name = _ALIASES.get(name, name)
    if name in _IN_ATTN or name in _IN_MLP:
        part = "attn" if name in _IN_ATTN else "mlp"
    elif name in _IN_NORM and layer is None:
        part = "ln_final"
    block = "" if layer is None else f"blocks.{layer}"
    places = (block, _PLACES.get(part or "", part), f"hook_{name}")
    return ".".join(place for place in places if place)


ONLY_IN_ACTIVATION_CACHE = (
    "accumulated_resid", "apply_ln_to_stack", "compute_head_results", "decompose_resid",
    "get_full_resid_decomposition", "get_neuron_results", "logit_attrs", "stack_activation",
    "stack_head_results", "stack_neuron_results",
)  # fmt: skip
"""The methods of TransformerLens's ActivationCache that a Cache does not have.
`circuits.decomposition.residual` gives equal results."""


class Cache(Mapping[str, Tensor]):
    """Activations by hook name: `cache["pattern", 3]`, `cache["blocks.3.attn.hook_pattern"]`.

    Negative layers count from the last layer. A missing name raises KeyError with the nearest
    names, the reason, and the names that were kept. `points` has the names of all hook points; True
    marks a point that is kept only when it is named. `asked` has the names that the run was asked
    for, or None if it was asked for no particular names.
    """

    def __init__(
        self,
        activations: Mapping[str, Tensor],
        n_layers: int,
        points: Mapping[str, bool] = {},
        asked: Sequence[str] | None = None,
        model: object = None,
    ) -> None:
        self._activations = dict(activations)
        self._points, self._asked = points, asked
        self.n_layers = n_layers
        self._model = None if model is None else weakref.ref(model)

    @property
    def model(self) -> Any:
        """The model whose run this is. None if the model no longer exists, or if the cache was
        pickled. A cache does not keep its model in memory."""
        return None if self._model is None else self._model()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def full_name(self, key: CacheKey) -> str:
        """The full hook name for a key. Negative layers count from the last layer."""
        if isinstance(key, str):
            return act_name(key)
        name, layer, *part = key
        number = None if layer is None else int(layer)
        if number is not None and number < 0:
            number += self.n_layers
        return act_name(name, number, *part)

    def __getitem__(self, key: CacheKey) -> Tensor:
        name = self.full_name(key)
        for kept in (name, CACHE_NAMES.get(name)):
            if kept in self._activations:
                return self._activations[kept]
        kept = list(self._activations)
        shown = kept if len(kept) <= 40 else [*kept[:40], f"... {len(kept) - 40} more"]
        raise KeyError(f"{name!r} is not in the cache; {self._why_absent(name)}; kept: {shown}")

    def _why_absent(self, name: str) -> str:
        if name not in self._points:
            near = difflib.get_close_matches(
                name, self._points.keys() | self._activations.keys(), 3
            )
            return f"no such hook point, nearest: {near}"
        if self._asked is not None and name not in self._asked:
            return "names_filter left it out"
        if self._asked is None and self._points[name]:
            return f"it is kept only when named: names_filter={name!r}"
        return "the run did not reach it"

    def __contains__(self, key: object) -> bool:
        name = self.full_name(key)  # type: ignore[arg-type]
        return name in self._activations or CACHE_NAMES.get(name) in self._activations

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        lines = (f"  {name} {list(value.shape)}" for name, value in self.items())
        return "Cache(\n" + "\n".join(lines) + "\n)"

    def to(self, target: torch.device | torch.dtype | str) -> "Cache":
        """A new cache, with every floating-point activation moved or converted."""
        moved = {
            name: value.to(target)
            if value.is_floating_point() or not isinstance(target, torch.dtype)
            else value
            for name, value in self.items()
        }
        return Cache(moved, self.n_layers, self._points, self._asked, self.model)

    def remove_batch_dim(self) -> "Cache":
        """This cache itself, now without its batch dim of size 1. ValueError if the batch is
        larger."""
        sizes = {value.shape[0] for value in self.values()} - {1}
        if sizes:
            raise ValueError(f"the batch dim has size {sizes.pop()}; only size 1 can be removed")
        self._activations.update({name: value[0] for name, value in self.items()})
        return self

    def __getattr__(self, name: str) -> Any:
        hint = f"; write circuits.io.bridge.activation_cache(cache, model).{name}"
        raise AttributeError(
            f"Cache has no {name!r}{hint if name in ONLY_IN_ACTIVATION_CACHE else ''}"
        )
