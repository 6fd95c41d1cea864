"""The loop that trains every toy, and the true probabilities of its sequences."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from circuits.data import BigramTriggers, CategoryLines, CausalGraph, Ciphered, MarkovChains

Data = TypeVar("Data", BigramTriggers, CategoryLines, CausalGraph, Ciphered, MarkovChains)
Loss = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, ""]]


def learn(
    data: Data,
    steps: int,
    loss: Loss,
    opts: Sequence[torch.optim.Optimizer],
    measure: Callable[[], Mapping[str, float]],
    *,
    batch: int,
    every: int,
    schedule: Callable[[int], float] = lambda step: 1.0,
) -> DataArray:
    """Train in place on the batches of `data`. Returns the measures before step 0, every `every`
    steps and after the last step, (what, step). `schedule(step)` times the rates of the optimizers
    are the rates of a step. ValueError for fewer than 0 steps, and for `every` below 1."""
    if steps < 0 or every < 1:
        raise ValueError(f"steps must be >= 0 and every >= 1, got steps={steps}, every={every}")
    rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    seen: dict[int, Mapping[str, float]] = {}
    for step in range(steps + 1):
        if step % every == 0 or step == steps:
            with torch.no_grad():
                seen[step] = measure()
        if step == steps:
            break
        loss(data.batch(step, batch)).backward()
        for opt, lrs in zip(opts, rates, strict=True):
            for group, lr in zip(opt.param_groups, lrs, strict=True):
                group["lr"] = lr * schedule(step)
            opt.step()
            opt.zero_grad()
    what = list(seen[0])
    values = np.array([[record[name] for record in seen.values()] for name in what])
    return DataArray(values, dims=("what", "step"), coords={"what": what, "step": list(seen)})


def unseen(data: Data) -> Data:
    """The same process with another seed, for test sequences."""
    other = copy.copy(data)
    other.seed = data.seed + 1
    return other


def true_odds(
    data: CausalGraph | MarkovChains, tokens: Int[Tensor, "batch *pos"]
) -> Float[Tensor, "batch *pos d_vocab"]:
    """The probabilities of the token after each of the tokens, by the chain of each row of the
    first batch of `data`."""
    chains = data.transitions(0, len(tokens)).float()
    return torch.stack([chain[row] for chain, row in zip(chains, tokens, strict=True)])
