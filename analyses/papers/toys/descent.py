"""The one loop that trains every toy: a step down, and now and then a look."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

Measure = Callable[[], Mapping[str, float]]


def descend(
    loss_at: Callable[[int], Float[Tensor, ""]],
    opts: Sequence[torch.optim.Optimizer],
    steps: int,
    measure: Measure,
    *,
    every: int,
    schedule: Callable[[int], float] = lambda step: 1.0,
) -> DataArray:
    """Train in place; what `measure` said before step 0, every `every` steps and after the last,
    (what, step). `loss_at(step)` is the loss of that step's batch, and `schedule(step)` the share
    of the optimizers' rates."""
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
        loss_at(step).backward()
        for opt, lrs in zip(opts, rates, strict=True):
            for group, lr in zip(opt.param_groups, lrs, strict=True):
                group["lr"] = lr * schedule(step)
            opt.step()
            opt.zero_grad()
    what = list(seen[0])
    values = np.array([[record[name] for record in seen.values()] for name in what])
    return DataArray(values, dims=("what", "step"), coords={"what": what, "step": list(seen)})
