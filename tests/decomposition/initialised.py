"""Small models as they are initialised."""

import dataclasses

from circuits import GPT, GPTConfig

SMALL = GPTConfig(n_layers=2, d_model=64, n_heads=4, d_head=16, d_vocab=30, n_ctx=8)


def initialised(count: int) -> list[GPT]:
    return [GPT(dataclasses.replace(SMALL, seed=100 + i)) for i in range(count)]
