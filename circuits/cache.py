"""Cache: the activations one run kept, read-only, and the short names that find them."""

import difflib
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

CacheKey = str | tuple[str, int] | tuple[str, int, str]

_IN_ATTN = {"q", "k", "v", "z", "rot_q", "rot_k", "attn_scores", "pattern", "result"}
_IN_MLP = {"pre", "mid", "post"}
_IN_NORM = {"scale", "normalized"}
_ALIASES = {"attn": "pattern", "attn_logits": "attn_scores"}


def act_name(name: str, layer: int | None = None, part: str | None = None) -> str:
    """Full hook name of a short one, as TransformerLens abbreviates them.

    ("pattern", 3) is blocks.3.attn.hook_pattern, ("scale", 0, "ln1") is blocks.0.ln1.hook_scale,
    "scale" alone is ln_final.hook_scale, "embed" is hook_embed; full names stay as they are.
    """
    if "." in name or name.startswith("hook_"):
        return name
    name = _ALIASES.get(name, name)
    if part is None:
        in_attn, in_mlp = name in _IN_ATTN, name in _IN_MLP
        part = "attn" if in_attn else "mlp" if in_mlp else "ln_final" if name in _IN_NORM else ""
    place = [f"blocks.{layer}"] if layer is not None else []
    return ".".join([*place, *([part] if part else []), f"hook_{name}"])


class Cache(Mapping[str, Tensor]):
    """Activations by hook name: `cache["pattern", 3]`, `cache["blocks.3.attn.hook_pattern"]`.

    Negative layers count from the last. A missing name raises KeyError with what was kept, the
    nearest name, and why the run did not keep it: `points` says of each hook point whether it is
    kept only when named, `asked` which were asked for, None for all the others.
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
        """The model whose run this is; None if it is gone, or not known (a cache that was pickled).

        It is not kept alive by its caches.
        """
        return None if self._model is None else self._model()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}

    def full_name(self, key: CacheKey) -> str:
        """The hook name that a key stands for; negative layers are counted from the end."""
        if isinstance(key, str):
            return act_name(key)
        name, layer, *part = key
        return act_name(name, layer + self.n_layers if layer < 0 else layer, *part)

    def __getitem__(self, key: CacheKey) -> Tensor:
        name = self.full_name(key)
        if name in self._activations:
            return self._activations[name]
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
        return "the run did not come past it"

    def __contains__(self, key: object) -> bool:
        return self.full_name(key) in self._activations  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._activations)

    def __len__(self) -> int:
        return len(self._activations)

    def __repr__(self) -> str:
        lines = (f"  {name} {list(value.shape)}" for name, value in self.items())
        return "Cache(\n" + "\n".join(lines) + "\n)"

    def to(self, target: torch.device | torch.dtype | str) -> "Cache":
        """The same cache with every floating-point activation moved or converted."""
        moved = {
            name: value.to(target)
            if value.is_floating_point() or not isinstance(target, torch.dtype)
            else value
            for name, value in self.items()
        }
        return Cache(moved, self.n_layers, self._points, self._asked, self.model)

    def remove_batch_dim(self) -> "Cache":
        """The same cache with the leading batch dim of size 1 taken off; ValueError if larger."""
        sizes = {value.shape[0] for value in self.values()} - {1}
        if sizes:
            raise ValueError(f"the batch dim has size {sizes.pop()}; only size 1 can be removed")
        rows = {name: value[0] for name, value in self.items()}
        return Cache(rows, self.n_layers, self._points, self._asked, self.model)
