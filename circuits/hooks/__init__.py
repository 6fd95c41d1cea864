"""Listening to a model: where one can hook, what is kept of a run, and who hears it.

- act_name: the full name of a hook point, from its short name and layer.
- ASIDE: the name under which a cache keeps shortformer positions, which other tools would count
    into the stream.
- BY_THEIRS: what TransformerLens's ActivationCache has that a cache here has not, and what to
    write instead.
- Cache: the activations of one run, by hook name.
- CacheKey: a hook name as a cache takes it: a full name, or a short name with a layer.
- Hook: one attached function.
- Hooked: a module whose hook points have names: it runs with hooks and keeps what they saw.
- HookFn: the type of a hook: it gets the activation and the hook point.
- HookPoint: a place where hooks see an activation and may replace it.
- Names: a choice of hook points: a name, a glob, a predicate, or several names.
- PosSlice: a choice of positions to keep of a run.
"""

from circuits.hooks.cache import ASIDE, BY_THEIRS, Cache, CacheKey, act_name
from circuits.hooks.hooked import Hooked, Names, PosSlice
from circuits.hooks.points import Hook, HookFn, HookPoint

__all__ = [
    "ASIDE", "BY_THEIRS", "Cache", "CacheKey", "Hook", "HookFn", "HookPoint", "Hooked",
    "Names", "PosSlice", "act_name",
]  # fmt: skip
