"""Tokens, runs and a metric, as tests of interventions share them."""

import torch

from circuits import GPT
from circuits.interventions import Sizes
from tests.conftest import tiny_tokens

TOKENS, OTHER = tiny_tokens(batch=4, pos=9), tiny_tokens(batch=4, pos=9, seed=5)


def metric(logits: torch.Tensor) -> torch.Tensor:
    """The largest logit less the logit of token 3, at the last position."""
    last = logits if logits.ndim == 2 else logits[:, -1]
    return last.amax(-1) - last[:, 3]


def caches(model: GPT):
    with torch.no_grad():
        return [model.run_with_cache(rows)[1] for rows in (TOKENS, OTHER)]


def few(model: GPT, runs: int = 2) -> int:
    """The bytes for this number of runs at a time, with logits at all positions."""
    sizes = Sizes(model, TOKENS, every=True, by_position=True)
    return sizes.kept() + runs * sizes.run()
