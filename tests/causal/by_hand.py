"""Tokens, a metric and runs by hand, as tests of causal analyses share them."""

import numpy as np
import torch

from analyses import Task, metrics, prompts
from circuits import GPT, ground_truth
from circuits.interventions import as_hooks
from tests.conftest import tiny_tokens

TOKENS, OTHER = tiny_tokens(batch=4, pos=8), tiny_tokens(batch=4, pos=8, seed=5)
RIGHT, WRONG = torch.tensor([3, 1, 4, 1]), torch.tensor([5, 9, 2, 6])
METRIC = metrics.logit_difference(RIGHT, WRONG)


def cache_of(model: GPT, tokens: torch.Tensor):
    with torch.no_grad():
        return model.run_with_cache(tokens)[1]


def by_hand(model: GPT, cell) -> np.ndarray:
    with torch.no_grad():
        return METRIC(model.run_with_hooks(TOKENS, fwd_hooks=as_hooks(cell))).numpy()


def induction_task() -> Task:
    """Random tokens twice, without the last token; and the same with another first copy."""
    model = ground_truth.Induction().model
    clean = prompts.repeated(model, 8, batch=6)[:, :-1]
    right = prompts.repeated(model, 8, batch=6)[:, -1]
    corrupted = clean.clone()
    corrupted[:, 1:9] = prompts.random_tokens(model, 8, batch=6, seed=9)[:, 1:]
    return Task(model, clean, corrupted, metrics.probability(right))
