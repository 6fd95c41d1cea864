"""circuits: a small GPT with hooks, and the parts of its computation as exact sums.

from circuits import load
model = load("attn-only-2l")
logits, cache = model.run_with_cache(model.to_tokens("When Mary and John went to the shop,"))
cache["pattern", 1]
"""

from circuits.decomposition import algebra, composition, offsets, paths, residual, scores
from circuits.hooks import Cache, HookPoint
from circuits.io import load, save
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, GPTConfig

__all__ = [
    "GPT",
    "Cache",
    "FactoredMatrix",
    "GPTConfig",
    "HookPoint",
    "algebra",
    "composition",
    "load",
    "offsets",
    "paths",
    "residual",
    "save",
    "scores",
]
