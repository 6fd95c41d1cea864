"""Architectures of transformers as tables of data: their fields and weights under a GPT's names.

`reading` has the parts of a table and the functions that read one. Every other file has tables. An
architecture of known parts is one entry in a table.
"""

from circuits.io.families import gpt2, llama, neox
from circuits.io.families.reading import Family, Weights, fields_of, weights_of

FAMILIES: dict[str, Family] = {**gpt2.FAMILIES, **neox.FAMILIES, **llama.FAMILIES}
"The architectures by transformers' model_type."

__all__ = ["FAMILIES", "Family", "Weights", "fields_of", "weights_of"]
