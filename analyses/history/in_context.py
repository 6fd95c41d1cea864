"""In-context learning: the loss late in the context compared with the loss early in it.

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
    """The loss in nats of each of rows[:, 1:], given the tokens before it, (example, index). Index
    i is the token with i tokens before it. Rows may have n_ctx + 1 tokens."""
    return DataArray(
        to_numpy(losses.of_tokens(model, rows)),
        dims=("example", "index"),
        coords={"index": np.arange(1, rows.shape[1])},
        name="loss_by_index",
        attrs={"units": "nats", "long_name": "loss"},
    )


def score(loss: DataArray) -> DataArray:
    """The loss late in the context minus the loss early in it, in nats, from losses (..., index). A
    more negative score means more in-context learning. attrs["chance"] is 0, for a model without
    in-context learning.

    Late and early are tokens 500 and 50 of 512, or the same shares of another context. The paper
    has 10,000 examples; here are about a hundred, so losses are averaged over 1/64 of the context
    on either side. With a dim `example` the score is the mean over examples, and `low` and `high`
    are the ends of its 95% interval.
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
    """The mean losses over half octaves of the token index, (..., index), in nats. The index of a
    half octave is the geometric mean of its indices."""
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
    """d loss / d ln(index) of losses (..., index), in nats: below 0 where more context lowers the
    loss. The slope is taken between neighbouring indices and labelled by their geometric mean.
    `slope(by_log_index(loss))` has less noise.

    It is linear in the losses, so the mean over examples can be taken before or after. ValueError
    for fewer than two indices. (Olsson et al. 2022, "Argument 1".)
    """
    if loss.sizes["index"] < 2:
        raise ValueError("a slope needs losses at two indices or more")
    at = np.log(loss.index.values)
    by_log = loss.transpose(..., "index").diff("index", label="lower") / np.diff(at)
    named = by_log.assign_coords(index=np.exp((at[1:] + at[:-1]) / 2)).rename("slope")
    return named.assign_attrs(units="nats", long_name="dLoss / dln(index)", chance=0.0)
