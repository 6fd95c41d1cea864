"""Hooks: how one sees and changes the activations of a run, and the cache of a run.

- act_name: the full name of a hook point, from its short name and layer.
- Cache: the activations of one run, by hook name.
- CACHE_NAMES: the names of activations that a cache keeps under another name.
- CacheKey: the type of a key of a cache: a full name, or a short name with a layer.
- Hook: one attached function.
- Hooked: a module with named hook points. It runs with hooks, and keeps activations in a cache.
- HookFn: the type of a hook function: it gets the activation and the hook point.
- HookPoint: a place where hooks see an activation and may replace it.
- Names: the type of a choice of hook points: a name, a glob, a function, or several names.
- ONLY_IN_ACTIVATION_CACHE: the methods of TransformerLens's ActivationCache that Cache lacks.
- PosSlice: the type of a choice of positions.
"""

from circuits.hooks.cache import CACHE_NAMES, ONLY_IN_ACTIVATION_CACHE, Cache, CacheKey, act_name
from circuits.hooks.hooked import Hooked, Names, PosSlice
from circuits.hooks.points import Hook, HookFn, HookPoint

__all__ = [
    "CACHE_NAMES", "ONLY_IN_ACTIVATION_CACHE", "Cache", "CacheKey", "Hook", "HookFn", "HookPoint",
    "Hooked", "Names", "PosSlice", "act_name",
]  # fmt: skip
