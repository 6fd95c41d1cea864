"""HookedTransformer as code for TransformerLens 2 and 3 knows it: change the import, keep the code.

from circuits.hooked_transformer import HookedTransformer, HookedTransformerConfig, utils

A HookedTransformer is a GPT: all of `circuits` and `analyses` takes it, and the run that it keeps.
What had a meaning there has it here or is refused in words; nothing is passed over in silence.
"""

from circuits.hooked_transformer import utils
from circuits.hooked_transformer.cache import ActivationCache
from circuits.hooked_transformer.config import HookedTransformerConfig
from circuits.hooked_transformer.matrices import FactoredMatrix
from circuits.hooked_transformer.model import HookedTransformer
from circuits.hooked_transformer.past_key_value_caching import (
    HookedTransformerKeyValueCache,
    TransformerLensKeyValueCache,
)
from circuits.hooks import HookPoint

__all__ = ["ActivationCache", "FactoredMatrix", "HookPoint", "HookedTransformer",
           "HookedTransformerConfig", "HookedTransformerKeyValueCache",
           "TransformerLensKeyValueCache", "utils"]  # fmt: skip
