"""Composition: how much of each earlier head's output a head reads through Q, K or V.

The scores of `circuits.composition` with labels, minus the score of random matrices of the same
shape. (Elhage et al. 2021, "Two-layer attention-only transformers",
https://transformer-circuits.pub/2021/framework/index.html; formulas without the published bug)
"""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses.labelled import to_numpy
from circuits import composition
from circuits.decomposition import composition_chance
from circuits.decomposition.turns import Offset, offsets
from circuits.model import GPT, GPTConfig, every_head

NULLS = ("drawn", "closed", "rotated")
"The null models of `quantile`; see `over_chance`."


def over_chance(
    model: GPT,
    *,
    samples: int | None = None,
    seed: int = 0,
    null: str = "drawn",
    offset: Offset = None,
) -> DataArray:
    """||W_OV M|| / (||W_OV|| ||M||) minus chance, (via, writer, reader), in [-chance, 1 - chance];
    NaN unless the writer's layer is earlier than the reader's.

    M is the reader's W_QK for Q, W_QK^T for K and W_OV for V. attrs["chance"] = 1 / sqrt(d_model)
    is subtracted. attrs["quantile"] is the largest score minus chance in `samples` random models of
    the same shape. In another random model all scores are below it with probability
    attrs["level"] = samples / (samples + 1). A score below it is no finding. A score above it need
    not be a circuit, because trained weights are not random. The default of `samples` is 19, or
    fewer for large models (20,000 pairs in all, but at least 3 models). Each sample takes the time
    of one call, once for each shape. ValueError for fewer than two layers.

    With null="closed" a formula gives the quantile, by default at the level of 19 samples. With
    null="rotated" the null model is this model with every head rotated at random and its singular
    values kept. This quantile is higher: a head does not exceed it only by reading and writing few
    directions. See `circuits.decomposition.composition_chance`.

    With rotary positions the scores of Q and K are of one or several offsets, by default the root
    of the mean square over all. The formula of "closed" is for one offset.
    """
    result = raw(model, samples=samples, seed=seed, null=null, offset=offset)
    chance = result.attrs["chance"]
    changed = {
        "long_name": "composition less chance",
        "bounds": (-chance, 1.0 - chance),
        "quantile": result.attrs["quantile"] - chance,
    }
    return (result - chance).assign_attrs({**result.attrs, **changed})


def raw(
    model: GPT,
    *,
    samples: int | None = None,
    seed: int = 0,
    null: str = "drawn",
    offset: Offset = None,
) -> DataArray:
    """||W_OV M|| / (||W_OV|| ||M||), (via, writer, reader), in [0, 1], without subtraction; attrs
    hold `chance` and `quantile` for comparison. See `over_chance`."""
    _require_two_layers(model)
    if samples is not None and samples < 1:
        raise ValueError(f"samples is a number of random models, 1 or more, got {samples}")
    if null not in NULLS:
        raise ValueError(f"null={null!r}; choose from {', '.join(NULLS)}")
    if null == "closed" and model.cfg.rotary and not isinstance(offset, int):
        raise ValueError("null='closed' is for one offset of rotary positions: give offset=1, or "
                         "take null='drawn'")  # fmt: skip
    with torch.no_grad():
        values = composition.scores(model, offset)
        pairs = int((~values.isnan()).sum())
        samples = samples or (min(19, max(3, 20_000 // pairs)) if null == "drawn" else 19)
        quantile = _quantile(model, null, samples, seed, offset)
    return _labelled(
        model,
        values,
        long_name="composition",
        bounds=(0.0, 1.0),
        chance=composition.chance(model.cfg),
        quantile=quantile,
        level=samples / (samples + 1),
        null=null,
    )


def erratum(model: GPT) -> DataArray:
    """NOT composition: the norm of the rotated product that the paper's first diagram showed by
    mistake, minus chance, (via, writer, reader). It serves only the figure of the erratum.

    attrs["chance"] = sqrt(d_head) / d_model is the root mean square for random matrices, up to the
    spread of their norms. ValueError for fewer than two layers.
    """
    _require_two_layers(model)
    with torch.no_grad():
        values = composition.rotated_scores(model)
    chance = math.sqrt(model.cfg.d_head) / model.cfg.d_model
    words = "rotated norm (erratum) less chance"
    return _labelled(model, values - chance, long_name=words, chance=chance)


def _quantile(model: GPT, null: str, samples: int, seed: int, offset: Offset) -> float:
    """The score below which all scores of another null model stay with probability n / (n + 1)."""
    cfg, level = model.cfg, samples / (samples + 1)
    if null == "closed":
        return composition_chance.largest_score(cfg, level)
    if null == "rotated":
        return composition_chance.largest_score_rotated(model, level, offset)
    shape = {name: getattr(cfg, name) for name in ("n_layers", "d_model", "n_heads", "d_head")}
    back = None
    if cfg.rotary and not isinstance(offset, int):  # at one offset heads are as without turns
        names = ("positional_embedding_type", "rotary_dim", "rotary_base", "n_ctx")
        shape |= {name: getattr(cfg, name) for name in names}
        back = None if offset is None else tuple(offsets(model, offset).tolist())
    kind = (tuple(shape.items()), torch.get_default_dtype(), back)
    return max(_largest_at_random(*kind, seed + i) for i in range(samples))


@cache
def _largest_at_random(
    shape: tuple[tuple[str, Any], ...], dtype: torch.dtype, back: tuple[int, ...] | None, seed: int
) -> float:
    """The largest composition score of a model with Gaussian heads. The arguments determine it
    (`dtype` is torch's default dtype, in which weights are drawn), so it is cached."""
    bare = {"d_vocab": 1, "n_ctx": 1, "positional_embedding_type": "none", **dict(shape)}
    drawn = {"normalization_type": None, "bias": False, "init_range": 1.0, "seed": seed}
    return composition.scores(GPT(GPTConfig(**bare, **drawn)), back).nan_to_num(0.0).max().item()


def _require_two_layers(model: GPT) -> None:
    if model.cfg.n_layers < 2:
        raise ValueError(
            f"heads compose with heads of earlier layers: two layers or more are needed, the model "
            f"has {model.cfg.n_layers}"
        )


def _labelled(
    model: GPT,
    values: Float[Tensor, "via writer_layer writer reader_layer reader"],
    **attrs: Any,
) -> DataArray:
    heads = every_head(model.cfg)
    coords: dict[str, Any] = {"via": list(composition.VIA)}
    for end in ("writer", "reader"):
        coords[end] = [str(head) for head in heads]
        coords[f"{end}_layer"] = (end, np.array([head.layer for head in heads]))
        coords[f"{end}_head"] = (end, np.array([head.head for head in heads]))
    square = to_numpy(values.flatten(3, 4).flatten(1, 2))
    dims = ("via", "writer", "reader")
    return DataArray(square, coords, dims, name="composition", attrs=attrs)
