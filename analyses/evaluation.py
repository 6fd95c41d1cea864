"""A model over a corpus: its loss, and what its heads attend to on text, with standard errors.

In a process group (circuits.distributed.group) each process takes its share of every batch, and
all get the same numbers.
"""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
import xarray
from jaxtyping import Float, Int
from torch import Tensor
from xarray import Dataset

from analyses import in_context
from analyses.labelled import head_coords, to_numpy
from analyses.masks import BEHAVIOURS
from circuits.config import check_predicts
from circuits.distributed import rank, share, total
from circuits.model import GPT
from circuits.products import at_least_single

Rows = Int[Tensor, "batch pos"]


def over(model: GPT, batches: Iterable[Int[Tensor, "_ pos"]]) -> Dataset:
    """Means over the windows of text in `batches`, each [batch pos] and of one length.

    held_out, and (index) loss_by_index, in nats, with in_context_score; (layer, head, behaviour)
    attention, the mean attention on the entries of a behaviour in [0, 1], chance (behaviour) for a
    head that attends uniformly. A window's score is the mean over its destinations that have such
    an entry. held_out_error and attention_error are standard errors over windows; attrs["windows"]
    counts them. ValueError without
    any, and for a process that gets none.
    """
    device = model.W_E.device
    parts = (share(rows).to(device) for rows in batches)
    sums = _summed(_of_windows(model, rows) for rows in parts if len(rows))
    loss, squares = sums["loss"], sums["loss_squares"]
    n = float(sums["windows"])
    mean, error = _mean_and_error(loss.sum() / len(loss), squares, sums["windows"])
    attention, attention_error = _mean_and_error(
        sums["attention"], sums["attention_squares"], sums["matched"]
    )
    heads = ("layer", "head", "behaviour")
    nats = {"units": "nats", "long_name": "held-out loss"}
    words = {"long_name": "mean attention on text", "bounds": (0.0, 1.0)}
    data = xarray.Dataset(
        {
            "held_out": ((), float(mean), nats),
            "held_out_error": ((), float(error), {"units": "nats"}),
            "loss_by_index": ("index", to_numpy(loss / n), nats),
            "attention": (heads, to_numpy(attention), words),
            "attention_error": (heads, to_numpy(attention_error)),
            "chance": ("behaviour", to_numpy(sums["chance"] / sums["matched"])),
        },
        {
            "index": range(1, len(loss) + 1),
            "behaviour": list(BEHAVIOURS),
            **head_coords(model.cfg.n_layers, model.cfg.n_heads),
        },
        {"windows": int(n)},
    )
    return data.assign(in_context_score=in_context.score(data.loss_by_index))


def _of_windows(model: GPT, rows: Rows) -> dict[str, Tensor]:
    """Sums over some windows of what `over` averages, and of its squares."""
    check_predicts(model.cfg, "an evaluation")
    tokens = rows[:, :-1]
    with torch.no_grad():
        logits, cache = model.run_with_cache(
            tokens, names_filter=lambda name: name.endswith("hook_pattern")
        )
        loss = F.cross_entropy(logits.float().mT, rows[:, 1:].long(), reduction="none").double()
        masks = torch.stack([mask(tokens) for mask in BEHAVIOURS.values()], 1)  # batch what d s
        masks[:, :, 0] = False  # position 0 can only attend to itself
        dests = masks.any(-1).sum(-1)  # batch what
        there = dests > 0
        visible = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        chance = (masks.sum(-1) / visible).sum(-1) / dests.clamp(min=1)
        scores = torch.zeros(0, model.cfg.n_heads, *there.shape, device=tokens.device)
        if model.cfg.n_layers:
            on = [
                torch.einsum("bhds,bwds->hbw", pattern, masks.to(pattern.dtype))
                for pattern in (
                    at_least_single(cache["pattern", layer]) for layer in range(model.cfg.n_layers)
                )
            ]
            scores = torch.stack(on) / dests.clamp(min=1)
    scores = scores.double()
    return {
        "windows": torch.tensor(len(rows), device=tokens.device),
        "loss": loss.sum(0),
        "loss_squares": (loss.mean(1) ** 2).sum(),
        "attention": scores.sum(2),
        "attention_squares": (scores**2).sum(2),
        "matched": there.sum(0),
        "chance": (chance * there).sum(0).double(),
    }


def _summed(parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    """All parts of all processes together."""
    sums: dict[str, Tensor] = {}
    for part in parts:
        sums = {key: sums[key] + value if sums else value for key, value in part.items()}
    if not sums:
        raise ValueError(f"there are no windows of text to evaluate on, for rank {rank()}")
    return {key: total(value) for key, value in sums.items()}


def _mean_and_error(
    sums: Float[Tensor, "*of"], squares: Float[Tensor, "*of"], count: Int[Tensor, "*_"]
) -> tuple[Float[Tensor, "*of"], Float[Tensor, "*of"]]:
    """The mean of `count` numbers and its standard error; NaN where there are too few."""
    mean = sums / count
    variance = (squares / count - mean**2).clamp(min=0) * count / (count - 1)
    return mean, variance.div(count).sqrt().where(count > 1, math.nan)
