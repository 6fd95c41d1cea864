"""In-context learning: how much better a model predicts late in its context than early.

(Olsson et al. 2022, "Definitions" and "Argument 1",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from itertools import pairwise

import numpy as np
import torch
import xarray
from jaxtyping import Int
from torch import Tensor
from xarray import DataArray

from analyses import losses
from analyses.labelled import Model, interval, to_numpy
from analyses.losses import early_and_late


def loss_by_index(model: Model, rows: Int[Tensor, "batch pos"]) -> DataArray:
    """Loss in nats of each of rows[:, 1:] given the tokens before it, (example, index). Index i is
    the token with i tokens before it; so rows may have one token more than the context."""
    return DataArray(
        to_numpy(losses.of_tokens(model, rows)),
        dims=("example", "index"),
        coords={"index": np.arange(1, rows.shape[1])},
        name="loss_by_index",
        attrs={"units": "nats", "long_name": "loss"},
    )


def score(loss: DataArray) -> DataArray:
    """Loss late in the context less loss early in it, in nats, of losses (..., index): the more
    negative, the more the model learns from its context. attrs["chance"] is 0, for a model that
    gains nothing by it.

    At tokens 500 and 50 of 512, or the same shares of another context; for the paper's 10,000
    examples we have some hundred, and average over a 64th of the context to either side. Of losses
    with a dim `example` it is the mean, with `low` and `high`, the ends of its 95% interval.
    """
    early, late = (loss.isel(index=part) for part in early_and_late(loss.sizes["index"]))
    first, last = (part.index.values[[0, -1]] for part in (early, late))
    words = f"loss of tokens {last[0]} to {last[1]} less that of {first[0]} to {first[1]}"
    found = late.mean("index") - early.mean("index")
    if "example" in found.dims:
        each = torch.from_numpy(found.transpose("example", ...).values)
        low, high = to_numpy(interval(each, torch.ones_like(each)))
        found = found.mean("example")
        found = found.assign_coords(low=(found.dims, low), high=(found.dims, high))
    return found.rename("in_context_score").assign_attrs(units="nats", long_name=words, chance=0.0)


def by_log_index(loss: DataArray) -> DataArray:
    """Mean losses over half octaves of the token index, (..., index), in nats; the index of each is
    the geometric mean of those in it."""
    index = loss.index.values
    bounds = np.unique(np.round(2 ** np.arange(0, np.log2(index[-1]), 0.5)).astype(int))
    cells = [(index >= a) & (index < b) for a, b in pairwise([*bounds, index[-1] + 1])]
    cells = [cell for cell in cells if cell.any()]
    middle = np.exp([np.log(index[cell]).mean() for cell in cells])
    means = xarray.concat([loss[..., cell].mean("index") for cell in cells], "index")
    return (
        means.transpose(..., "index")
        .assign_coords(index=middle)
        .assign_attrs(units="nats", long_name="loss")
    )


def slope(loss: DataArray) -> DataArray:
    """d loss / d ln(index) of losses (..., index), in nats: how much each e-fold of context costs,
    below 0 where it helps. Between neighbouring indices, and given at their geometric mean; single
    indices are noisy, and `slope(by_log_index(loss))` less so.

    It is linear in the losses, so that means over examples may come before or after. ValueError for
    fewer than two indices. (Olsson et al. 2022, "Argument 1".)
    """
    if loss.sizes["index"] < 2:
        raise ValueError("a slope wants losses at two indices or more")
    at = np.log(loss.index.values)
    by_log = loss.transpose(..., "index").diff("index", label="lower") / np.diff(at)
    named = by_log.assign_coords(index=np.exp((at[1:] + at[:-1]) / 2)).rename("slope")
    return named.assign_attrs(units="nats", long_name="dLoss / dln(index)", chance=0.0)
