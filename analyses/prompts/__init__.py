"""The prompts of the analyses: random tokens in known orders, and passages of ours.

- bos_of: the token that begins a prompt for a model.
- described: the attrs of a score that describe its prompts.
- length_of_repeat: the number of tokens that are said twice.
- random_tokens: BOS and random tokens.
- reach: the number of positions that a prompt may have.
- repeated: BOS and random tokens said twice.
- repeated_often: BOS and 25 random tokens said four times.
- tokens_or: the tokens that were given, or a default prompt.
"""

from analyses.prompts.sequences import (
    bos_of,
    described,
    length_of_repeat,
    random_tokens,
    reach,
    repeated,
    repeated_often,
    tokens_or,
)

__all__ = [
    "bos_of",
    "described",
    "length_of_repeat",
    "random_tokens",
    "reach",
    "repeated",
    "repeated_often",
    "tokens_or",
]
