"""circuits: a hookable minimal GPT, and how it comes apart.

from circuits import load
model = load("attn-only-2l")
logits, cache = model.run_with_cache(model.to_tokens("When Mary and John went to the shop,"))
cache["pattern", 1]
"""

from circuits.cache import Cache
from circuits.config import GPTConfig
from circuits.factored import FactoredMatrix
from circuits.hooks import HookPoint
from circuits.model import GPT
from circuits.pretrained import load, save

__all__ = ["GPT", "Cache", "FactoredMatrix", "GPTConfig", "HookPoint", "load", "save"]
