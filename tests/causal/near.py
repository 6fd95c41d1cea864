"""A run between two runs, as tests of slopes share it."""

import torch

from analyses import metrics
from circuits import GPT
from circuits.hooks import Cache
from tests.conftest import tiny_tokens

TOKENS, OTHER = tiny_tokens(batch=4, pos=6), tiny_tokens(batch=4, pos=6, seed=5)
METRIC = metrics.loss(torch.tensor([3, 1, 4, 1]))


def near(model: GPT, share: float) -> Cache:
    """A run between the run on TOKENS and the run on OTHER, at this share of the way."""
    with torch.no_grad():
        here, there = (model.run_with_cache(tokens)[1] for tokens in (TOKENS, OTHER))
    moves = [name for name in here if not name.endswith(("tokens", "attn_scores"))]
    moved = {name: here[name] + share * (there[name] - here[name]) for name in moves}
    return Cache(moved, model.cfg.n_layers)
