"""In-context learning: how much better a model predicts late in its context than early.

(Olsson et al. 2022, "Definitions",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from xarray import DataArray

from analyses import dynamics
from analyses.labelled import Model, interval
from circuits.config import check_predicts

LOGITS = 2**24
"How many are held in memory at a time."


def loss_by_index(model: Model, rows: Int[Tensor, "batch pos"]) -> DataArray:
    """Loss in nats of rows[:, 1:] given what is before each, (example, index). Index i is the token
    with i tokens before it; so rows may have one token more than the context."""
    check_predicts(model.cfg, "the next-token loss")
    done, at_once = [], max(1, LOGITS // (rows.shape[1] * model.cfg.d_vocab))
    with torch.no_grad():
        for part in rows.split(at_once):
            logits = model(part[:, :-1]).to(part.device)
            done.append(F.cross_entropy(logits.mT, part[:, 1:].long(), reduction="none"))
    return DataArray(
        torch.cat(done).cpu().numpy(),
        dims=("example", "index"),
        coords={"index": np.arange(1, rows.shape[1])},
        name="loss_by_index",
        attrs={"units": "nats", "long_name": "loss"},
    )


def score(loss: DataArray) -> DataArray:
    """Loss late in the context less loss early in it, a number in nats, of losses (example, index):
    `dynamics.in_context_score` with `low` and `high`, a bootstrap over examples.

    attrs["chance"] is 0, for a model that gains nothing by its context.
    """
    each = torch.from_numpy(dynamics.in_context_score(loss).transpose("example").values)
    low, high = interval(each, torch.ones(len(each))).tolist()
    found = dynamics.in_context_score(loss.mean("example"))
    return found.assign_coords(low=low, high=high).assign_attrs(chance=0.0)


def slope(loss: DataArray) -> DataArray:
    """d loss / d ln(index) of losses with a dim `index`, in nats: how fast the loss falls each time
    the context grows e-fold. Central differences, second order in the gaps of ln(index).

    It is linear in the losses, so that means over examples may come before or after. ValueError for
    fewer than two indices.
    """
    if loss.sizes["index"] < 2:
        raise ValueError("a slope wants losses at two indices or more")
    values = np.gradient(loss.values, np.log(loss.index.values), axis=loss.get_axis_num("index"))
    return loss.copy(data=values).rename("slope").assign_attrs(
        long_name="slope of the loss by ln(index)", units="nats", chance=0.0
    )  # fmt: skip
