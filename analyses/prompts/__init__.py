"""What analyses read: random tokens in known orders, and passages of ours.

- bos_of: the token that begins a prompt for a model.
- judged: what a score says of the prompts that it was judged on.
- random_tokens: BOS and random tokens.
- reach: how many positions a prompt may have.
- repeated: BOS and random tokens said twice.
- repeated_often: BOS and 25 random tokens said four times.
"""

from analyses.prompts.sequences import (
    bos_of,
    judged,
    random_tokens,
    reach,
    repeated,
    repeated_often,
)

__all__ = [
    "bos_of", "judged", "random_tokens", "reach", "repeated", "repeated_often",
]  # fmt: skip
