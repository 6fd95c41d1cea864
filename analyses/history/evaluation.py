"""A model on a corpus: its loss, and the attention scores of its heads, with standard errors.

In a process group (circuits.distributed.group) each process takes its share of every batch, and
all processes return the same numbers.
"""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import xarray
from jaxtyping import Float, Int
from torch import Tensor
from xarray import Dataset

from analyses import losses
from analyses.heads.masks import BEHAVIOURS
from analyses.history import in_context
from analyses.labelled import head_coords, to_numpy
from circuits.distributed import rank, share, total
from circuits.model import GPT, check_predicts

Rows = Int[Tensor, "batch pos"]
LOGITS = 2**21
"The number of logits computed at a time, 8 MiB: larger blocks do not fit into the CPU cache."


def evaluate_on(model: GPT, batches: Iterable[Int[Tensor, "_ pos"]]) -> Dataset:
    """Means over the windows of text in `batches`, each [batch pos], all windows of one length.

    (): held_out; (index): loss_by_index, both in nats, and in_context_score; (layer, head,
    behaviour): attention, the mean attention on the mask of a behaviour, in [0, 1]; (behaviour):
    chance, the score of uniform attention. A window's score is the mean over the destinations with
    an entry in the mask. held_out_error and attention_error are standard errors over windows;
    attrs["windows"] is the number of windows. ValueError if a process gets no window.
    """
    device = model.W_E.device
    shares = (share(rows).to(device) for rows in batches)
    sums = _summed(part for rows in shares for part in _side_by_side(model, rows))
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


def _side_by_side(model: GPT, rows: Rows) -> list[dict[str, Tensor]]:
    """`_of_windows` of each piece of the rows, in order. On a CPU a thread computes whole pieces:
    threads that share every small operation mostly wait for one another."""
    pieces, threads = _pieces(model, rows), torch.get_num_threads()
    if threads == 1 or len(pieces) == 1:
        return [_of_windows(model, piece) for piece in pieces]
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(partial(_of_windows, model), pieces))
    finally:
        torch.set_num_threads(threads)


def _pieces(model: GPT, rows: Rows) -> tuple[Int[Tensor, "_ pos"], ...]:
    """The rows in pieces whose logits fit into the CPU cache; on a GPU one piece of all rows."""
    if model.W_E.device.type != "cpu":
        return (rows,) if len(rows) else ()
    return rows.split(max(1, LOGITS // (rows.shape[1] * model.cfg.d_vocab))) if len(rows) else ()


def _of_windows(model: GPT, rows: Rows) -> dict[str, Tensor]:
    """The sums, over some windows, of the numbers that `evaluate_on` averages, and of their
    squares."""
    check_predicts(model.cfg, "an evaluation")
    tokens = rows[:, :-1]
    masks = torch.stack([rule.mask(tokens) for rule in BEHAVIOURS.values()], 1).float()
    masks[:, :, 0] = 0  # position 0 can only attend to itself
    matched = masks.sum(-1)  # batch behaviour dest
    dests = (matched > 0).sum(-1)  # batch behaviour
    there = dests > 0
    visible = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    chance = (matched / visible).sum(-1) / dests.clamp(min=1)
    loss, on = _loss_and_attention(model, rows, masks)
    scores = (on / dests.clamp(min=1)).double()
    return {
        "windows": torch.tensor(len(rows), device=tokens.device),
        "loss": loss.sum(0),
        "loss_squares": (loss.mean(1) ** 2).sum(),
        "attention": scores.sum(2),
        "attention_squares": (scores**2).sum(2),
        "matched": there.sum(0),
        "chance": (chance * there).sum(0).double(),
    }


def _loss_and_attention(
    model: GPT, rows: Rows, masks: Float[Tensor, "batch behaviour dest src"]
) -> tuple[Float[Tensor, "batch next"], Float[Tensor, "layer head batch behaviour"]]:
    """The loss of each token, and each head's attention on each mask, summed over destinations. One
    run; patterns are not kept."""
    found: list[Tensor] = []
    wanted = masks.flatten(2).mT

    def read(pattern: Tensor, hook: object) -> None:
        found.append((pattern.float().flatten(2) @ wanted).transpose(0, 1))

    hooks = [(f"blocks.{layer}.attn.hook_pattern", read) for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        logits = model.run_with_hooks(rows[:, :-1], fwd_hooks=hooks)
        loss = losses.of_logits(logits, rows[:, 1:]).double()
    none = masks.new_zeros(0, model.cfg.n_heads, *masks.shape[:2])
    return loss, torch.stack(found) if found else none


def _summed(parts: Iterator[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The sum of all parts over all processes."""
    sums: dict[str, Tensor] = {}
    for part in parts:
        sums = {key: sums[key] + value if sums else value for key, value in part.items()}
    if not sums:
        raise ValueError(f"there are no windows of text to evaluate on, for rank {rank()}")
    return {key: total(value) for key, value in sums.items()}


def _mean_and_error(
    sums: Float[Tensor, "*of"], squares: Float[Tensor, "*of"], count: Int[Tensor, "*_"]
) -> tuple[Float[Tensor, "*of"], Float[Tensor, "*of"]]:
    """The mean of `count` numbers and its standard error, which is NaN for fewer than 2 numbers."""
    mean = sums / count
    variance = (squares / count - mean**2).clamp(min=0) * count / (count - 1)
    return mean, variance.div(count).sqrt().where(count > 1, math.nan)
