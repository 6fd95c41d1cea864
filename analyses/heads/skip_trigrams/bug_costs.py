"""The cost of skip-trigram bugs: the loss that forced cells add on text, in nats.

A cell is a source, a destination and an out at one head. A head raises a cell if its QK score and
its OV effect are above 0. A raised cell is right if a given text has it: the out follows the
destination, and the source came before both in the same window. A raised cell is forced if the text
does not have it, but its row (source and destination) and its column (source and out) each have a
right cell: one head cannot have these two right cells without the forced cell. (An open question of
Elhage et al. 2021, "Skip-trigram bugs",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from dataclasses import dataclass

import torch
import xarray
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.heads.copying import centre_rows
from analyses.heads.skip_trigrams.effects import through_first_norm
from analyses.labelled import interval, to_numpy
from circuits.decomposition import full_OV, full_QK
from circuits.model import GPT, check_predicts

CELLS = ("right", "forced")
Presence = Bool[Tensor, "bigram source"]


def bug_cost(model: GPT, windows: Int[Tensor, "window pos"], seen: Tensor) -> DataArray:
    """The loss in nats per token that the `right` and the `forced` cells add, (cells, window). It
    is below 0 for cells that lower the loss. Cells are found in the windows `seen`, [window pos],
    and measured on `windows`.

    For each head and each source before a destination, attention times OV is taken off the logits
    of the outs of these cells. Attention and the scale of the last norm stay. ValueError unless the
    model has one layer and no MLP: only in such a model are the circuits from token to token exact.
    """
    check_predicts(model.cfg, "the cost of a bug")
    if model.cfg.n_layers != 1 or not model.cfg.attn_only:
        raise ValueError("the cost of bugs is measured in attention-only models of one layer, got "
                         f"n_layers={model.cfg.n_layers}, d_mlp={model.cfg.d_mlp}")  # fmt: skip
    with torch.no_grad():
        known = _Known.of(seen, model.cfg.d_vocab)
        heads = _raised(model, known)
        costs = [_of_window(model, row, known, heads) for row in windows]
    values = torch.tensor(costs, dtype=torch.float64).reshape(-1, 2).T
    return DataArray(
        to_numpy(values),
        dims=("cells", "window"),
        coords={"cells": list(CELLS)},
        name="bug_cost",
        attrs={"long_name": "loss that the cells add", "units": "nats per token"},
    )


@dataclass(frozen=True)
class _Known:
    """The bigrams of a text, in order of their first tokens; the sources that came before each
    bigram in some window; and the index at which the bigrams of each first token begin."""

    bigrams: Int[Tensor, "bigram 2"]
    present: Presence
    begins: list[int]

    @classmethod
    def of(cls, rows: Int[Tensor, "window pos"], d_vocab: int) -> "_Known":
        """Collect the bigrams of rows of tokens. A destination is no source of its own bigram."""
        pairs = torch.stack([rows[:, :-1], rows[:, 1:]], -1)
        bigrams, which = pairs.flatten(0, 1).unique(dim=0, return_inverse=True)
        present = torch.zeros(len(bigrams), d_vocab, dtype=torch.bool)
        for row, numbers in zip(rows, which.reshape(pairs.shape[:2]).tolist(), strict=True):
            for at, number in enumerate(numbers):
                present[number, row[:at]] = True
        firsts = torch.arange(d_vocab + 1)
        begins = torch.searchsorted(bigrams[:, 0].contiguous(), firsts).tolist()
        return cls(bigrams, present, begins)

    def after(self, token: int) -> slice:
        """The bigrams whose first token is this one."""
        return slice(self.begins[token], self.begins[token + 1])


@dataclass(frozen=True)
class _Raised:
    """The raised cells of one head. `rows` is true for each source and destination that have a
    right cell. `OV` is the effect of each source on each out, and 0 unless it is above 0 and this
    column has a right cell."""

    rows: Bool[Tensor, "source destination"]
    OV: Float[Tensor, "source out"]


def _raised(model: GPT, known: _Known) -> list[_Raised]:
    read = through_first_norm(model)
    QK, OV = centre_rows(full_QK(read)), centre_rows(full_OV(read))
    destination, out = known.bigrams.T
    found = []
    for head in range(model.cfg.n_heads):
        asks, gives = QK[0, head].AB > 0, OV[0, head].AB
        raises = (gives > 0).T.contiguous()  # out source
        right = known.present & asks[destination] & raises[out]  # bigram source
        rows, columns = (_any_of(right, to) for to in (destination, out))
        found.append(_Raised(rows, gives.clamp(min=0) * columns))
    return found


def _any_of(right: Presence, to: Int[Tensor, " bigram"]) -> Bool[Tensor, "source d_vocab"]:
    """Whether some bigram of each token `to` has a right cell with each source."""
    found = torch.zeros(right.shape[1], right.shape[1], dtype=torch.bool)
    bigram, source = right.nonzero(as_tuple=True)
    found[source, to[bigram]] = True
    return found


def _of_window(
    model: GPT, row: Int[Tensor, " pos"], known: _Known, heads: list[_Raised]
) -> tuple[float, float]:
    """The loss that right and forced cells add in one window, mean over its tokens."""
    logits, cache = model.run_with_cache(row[None, :-1])
    scale = cache["ln_final.hook_scale"][0] if model.cfg.normalization_type else 1.0
    log_p, tokens, wanted = logits[0].log_softmax(-1), row[:-1], row[1:, None]
    every, right = torch.zeros(2, *log_p.shape, dtype=log_p.dtype)
    for head, cells in enumerate(heads):
        pattern = cache["pattern", 0][0, head].tril(-1)  # a token is no source of its own cell
        moved = pattern * cells.rows[tokens][:, tokens].T
        effect = cells.OV[tokens]  # source out
        every += moved @ effect
        for at, token in enumerate(tokens.tolist()):
            of = known.after(token)
            outs, there = known.bigrams[of, 1], known.present[of][:, tokens[:at]]
            right[at, outs] += (there.T * effect[:at][:, outs] * moved[at, :at, None]).sum(0)
    costs = []
    for raised in (right / scale, (every - right) / scale):
        without = (log_p - raised).logsumexp(-1) + raised.gather(1, wanted)[:, 0]
        costs.append(-float(without.mean()))
    return costs[0], costs[1]


def both_ways(model: GPT, windows: Int[Tensor, "window pos"], measured: int = 0) -> DataArray:
    """`bug_cost` of windows cut into two halves, (cells, window). The cells measured on one half
    are found in the other half. The coordinates `low` and `high` (cells) are the ends of the 95%
    interval over windows. `measured` is the number of windows that are measured in each half,
    evenly apart; 0 for all. ValueError for fewer than two windows."""
    if len(windows) < 2:
        raise ValueError(f"two windows or more are cut into two halves, got {len(windows)}")
    halves = windows.chunk(2)
    costs = []
    for half, other in zip(halves, halves[::-1], strict=True):
        step = max(1, len(half) // measured) if measured else 1
        costs.append(bug_cost(model, half[::step][: measured or None], other))
    found = xarray.concat(costs, "window")
    each = torch.from_numpy(found.transpose("window", "cells").values)
    low, high = to_numpy(interval(each, torch.ones_like(each)))
    return found.assign_coords(low=("cells", low), high=("cells", high))
