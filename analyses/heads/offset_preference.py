"""The distance that a head with rotary positions prefers for any tokens, from weights alone.

The kernel of a head (`circuits.decomposition.offsets`) is its mean score at each offset over all
pairs of tokens. A head whose kernel has one offset far above all others attends to this offset for
any tokens: at offset 1 it is a previous-token head. Far is measured by the spread that the tokens
make: the standard deviation of the score at this offset.
"""

import torch
from xarray import DataArray

from analyses.labelled import head_coords, to_numpy
from circuits.decomposition import offsets
from circuits.model import GPT

THRESHOLD = 1.0
"""The margin above which a head prefers an offset: its best offset is ahead of every other by more
than one standard deviation of what tokens change. Untrained heads are near 0."""


def offset_preference(model: GPT) -> DataArray:
    """The margin of a head's best offset over its second best, in standard deviations of the score
    over pairs of tokens, (layer, head), 0 or more; inf if tokens change nothing.

    The coordinate `offset` is the best offset. attrs["chance"] is 0. Only layer 0 reads tokens
    directly; deeper layers are read straight from the embedding, and can mislead. ValueError
    without rotary positions, and for fewer than two positions.
    """
    with torch.no_grad():
        kernel, spread = offsets.kernel(model), offsets.variance(model).clamp(min=0).sqrt()
    if model.cfg.n_ctx < 2:
        raise ValueError(f"a preference needs two offsets or more, and n_ctx={model.cfg.n_ctx}")
    two = kernel.topk(2, -1)
    best = two.indices[..., :1]
    margin, around = two.values[..., 0] - two.values[..., 1], spread.gather(-1, best)[..., 0]
    found = DataArray(
        to_numpy(torch.where(margin > 0, margin / around, margin)),
        dims=("layer", "head"),
        coords=head_coords(model.cfg.n_layers, model.cfg.n_heads),
        name="offset_preference",
        attrs={"long_name": "margin of the best offset", "chance": 0.0, "threshold": THRESHOLD,
               "units": "standard deviations over tokens"},
    )  # fmt: skip
    return found.assign_coords(offset=(("layer", "head"), to_numpy(best[..., 0])))


def kernels(model: GPT) -> DataArray:
    """The kernel of every head, (layer, head, offset): the mean score of a source at each offset
    over all pairs of tokens. The coordinate `spread` is its standard deviation over the pairs."""
    with torch.no_grad():
        values, spread = offsets.kernel(model), offsets.variance(model).clamp(min=0).sqrt()
    dims = ("layer", "head", "offset")
    coords = head_coords(model.cfg.n_layers, model.cfg.n_heads)
    return DataArray(
        to_numpy(values),
        dims=dims,
        coords={**coords, "offset": range(model.cfg.n_ctx), "spread": (dims, to_numpy(spread))},
        name="kernel",
        attrs={"long_name": "mean score by offset"},
    )
