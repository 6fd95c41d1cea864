"""HookedTransformer for scripts of TransformerLens 2 and 3: change the import, keep the script.

A HookedTransformer is a GPT: `circuits` and `analyses` take it and its caches. Each name has its
meaning in TransformerLens, or raises an error that says what to write instead.

- ActivationCache: the cache of a run, with the decompositions of TransformerLens.
- FactoredMatrix: a product of two matrices, under the names of TransformerLens.
- HookPoint: a point where hooks see an activation and may replace it.
- HookedTransformer: the model.
- HookedTransformerConfig: the config of the model, with TransformerLens's fields.
- HookedTransformerKeyValueCache: the keys and values of the tokens that a model has read.
- TransformerLensKeyValueCache: the same, under the name of TransformerLens 4.
- utils: the functions of transformer_lens.utils that scripts use.
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
