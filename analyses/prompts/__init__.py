"""The prompts of the analyses: random tokens in known orders, and passages of text.

- bos_of: the token that begins a prompt for a model.
- ciphered: BOS + R + cipher(R), with random tokens R and a permutation of the tokens.
- described: the attrs of a score that describe its prompts.
- length_of_repeat: the number of tokens of R in BOS + R + R.
- random_tokens: BOS and random tokens.
- reach: the number of positions that a prompt may have.
- repeated: BOS + R + R, with random tokens R.
- repeated_often: BOS and 25 random tokens, four times over.
- tokens_or: the given tokens, or a default prompt.
"""

from analyses.prompts.sequences import (
    bos_of,
    ciphered,
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
    "ciphered",
    "described",
    "length_of_repeat",
    "random_tokens",
    "reach",
    "repeated",
    "repeated_often",
    "tokens_or",
]
