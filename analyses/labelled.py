"""Labelled results with their intervals, and the interface of a model that analyses need."""

import math
from collections.abc import Callable
from functools import partial
from statistics import NormalDist
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Num, Shaped
from torch import Tensor
from xarray import DataArray

from circuits.decomposition import Parts
from circuits.matrices import at_least_single
from circuits.model import Head, Ids, check_causal, checked_tokens, is_text

Pattern = Float[Tensor, "batch head dest src"]
COVERAGE = 0.95
"The share of samples whose interval contains the true value."


@runtime_checkable
class Model(Protocol):
    """The interface of a model that the behavioural analyses need; circuits.GPT has it."""

    cfg: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def run_with_cache(self, *args: Any, **kwargs: Any) -> tuple[Any, Any]: ...
    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any: ...


@runtime_checkable
class Weighted(Model, Protocol):
    """A model that also has W_O, W_U and ln_final."""

    @property
    def W_O(self) -> Any: ...
    @property
    def W_U(self) -> Any: ...
    @property
    def ln_final(self) -> Any: ...


def to_numpy(values: Shaped[Tensor, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """A tensor as an array. Half precision becomes float32: numpy has no bfloat16, and means in
    float16 lose precision. All of `analyses` converts tensors with this function."""
    raised = at_least_single(values) if values.is_floating_point() else values
    return raised.detach().cpu().numpy()


def per_head(
    values: Num[Tensor, "layer head *rest"], name: str, *dims: str, **attrs: Any
) -> DataArray:
    """A DataArray (layer, head, *dims) with the label of each head, L1H4, as a coordinate. `attrs`
    are for example long_name, units, bounds and chance."""
    return DataArray(
        to_numpy(values),
        dims=("layer", "head", *dims),
        coords=head_coords(*values.shape[:2]),
        name=name,
        attrs=attrs,
    )


def of_parts(parts: Parts, *dims: str, **attrs: Any) -> DataArray:
    """Parts as a DataArray (part, *dims), for plots: `of_parts(residual.logit_attribution(...),
    "batch", "pos")`. attrs["remainder"] is the largest |whole - sum of parts|. ValueError unless
    `dims` has one name for each axis of the whole."""
    if len(dims) != parts.whole.ndim:
        raise ValueError(f"parts of a whole {list(parts.whole.shape)} need {parts.whole.ndim} dims "
                         f"after part, got {list(dims)}")  # fmt: skip
    missed = float(parts.remainder.abs().max()) if parts.whole.numel() else 0.0
    values = to_numpy(parts.stack)
    return DataArray(
        values, {"part": list(parts)}, ("part", *dims), attrs={**attrs, "remainder": missed}
    )


def mean_per_head(
    sums: Float[Tensor, "example layer head *rest"],
    counts: Num[Tensor, "example *_"],
    name: str,
    *dims: str,
    **attrs: Any,
) -> DataArray:
    """The sum of `sums` divided by the sum of `counts`, over examples, as `per_head`. The
    coordinates `low` and `high`, of the same dims, are its `interval`, cut to attrs["bounds"]."""
    every = ("layer", "head", *dims)
    values = sums.sum(0) / counts.sum(0)
    low, high = np.clip(to_numpy(interval(sums, counts)), *attrs.get("bounds", (None, None)))
    scores = per_head(values, name, *dims, **attrs)
    return scores.assign_coords(low=(every, low), high=(every, high))


def interval(
    sums: Float[Tensor, "example *of"], counts: Num[Tensor, "example *_"]
) -> Float[Tensor, "2 *of"]:
    """The ends of the 95% interval of the sum of `sums` divided by the sum of `counts`, for random
    examples.

    It uses Student's t with n - 1 degrees of freedom and the delta method for the error of the
    ratio. If all counts are 1, it is the interval of a mean. (A percentile bootstrap of 8 examples
    contains the true value in only 88% of cases.) NaN for fewer than two examples.
    """
    n = len(sums)
    if n < 2 or not sums.numel():
        return torch.full((2, *sums.shape[1:]), torch.nan, dtype=torch.float64)
    sums, counts = (x.cpu().double() for x in (sums, counts))
    ratio = sums.sum(0) / counts.sum(0)
    missed = (sums - ratio * counts).square().sum(0)
    error = (missed * n / (n - 1)).sqrt() / counts.sum(0)
    half = t_quantile(0.5 + COVERAGE / 2, n - 1) * error
    return torch.stack([ratio - half, ratio + half])


def t_quantile(p: float, degrees: int) -> float:
    """The quantile of Student's t: exact for 1 and 2 degrees of freedom, else with a relative error
    up to 1e-3. (Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5)"""
    if degrees == 1:
        return math.tan(math.pi * (p - 0.5))
    if degrees == 2:
        return (2 * p - 1) * math.sqrt(1 / (2 * p * (1 - p)))
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def rank_correlation(x: Num[np.ndarray, "*n"], y: Num[np.ndarray, "*n"]) -> float:
    """Spearman's rank correlation of all entries; equal values share the mean of their ranks. NaN
    where one of both is constant."""
    ranks = []
    for values in (x, y):
        _, which, count = np.unique(values, return_inverse=True, return_counts=True)
        middle = count.cumsum() - (count - 1) / 2
        ranks.append(middle[which.ravel()] - (values.size + 1) / 2)
    size = float(np.sqrt((ranks[0] ** 2).sum() * (ranks[1] ** 2).sum()))
    return float(ranks[0] @ ranks[1]) / size if size else math.nan


def head_coords(n_layers: int, n_heads: int) -> dict[str, Any]:
    """The coordinates of the dims layer and head: their numbers, and the label of each head."""
    labels = [[str(Head(layer, head)) for head in range(n_heads)] for layer in range(n_layers)]
    return {
        "layer": np.arange(n_layers),
        "head": np.arange(n_heads),
        "label": (("layer", "head"), np.array(labels, dtype=str).reshape(n_layers, n_heads)),
    }


def examples(values: Float[Tensor, "*lead example"], tokens: Int[Tensor, "batch pos"]) -> list[Any]:
    """The labels of a metric's values: the numbers of the examples, or "all" if the metric gives
    one value for the whole batch (which then has no interval)."""
    n = values.shape[-1]
    return list(range(n)) if n == len(tokens) else ["all"]


def tokens_of(model: Model, given: Ids | str) -> Int[Tensor, "batch pos"]:
    """The given tokens or text as a batch of tokens; one row becomes a batch of one row. ValueError
    if the model cannot read them."""
    text = is_text(given)
    return checked_tokens(model.to_tokens(given) if text else given, model.cfg)  # type: ignore[attr-defined]


def words_of(model: Model, tokens: Int[Tensor, "*shape"]) -> list[str]:
    """Each token as a string, in order; its number if the model has no tokenizer."""
    ids = tokens.flatten().tolist()
    if getattr(model, "tokenizer", None) is None:
        return [str(token) for token in ids]
    return [model.to_string(token) for token in ids]  # type: ignore[attr-defined]


def of_patterns(
    model: Model, tokens: Int[Tensor, "batch pos"], of: Callable[[Tensor], Tensor]
) -> Float[Tensor, "batch layer head *rest"]:
    """The result of `of` for each layer's pattern, [batch head *rest], stacked by layer. One run
    without gradients; only one pattern is held at a time."""
    check_causal(model.cfg, "what is measured on a pattern")
    layers = range(model.cfg.n_layers)
    if not layers:
        none = torch.zeros(len(tokens), model.cfg.n_heads, *2 * tokens.shape[1:])
        return of(none)[:, None][:, :0]
    found: list[Tensor] = []
    keep = partial(_keep, found, of, tokens.device)
    hooks = [(f"blocks.{layer}.attn.hook_pattern", keep) for layer in layers]
    with torch.no_grad():
        model.run_with_hooks(tokens, return_type=None, fwd_hooks=hooks)
    return torch.stack(found, 1)


def _keep(
    found: list[Tensor],
    of: Callable[[Tensor], Tensor],
    device: torch.device,
    pattern: Pattern,
    hook: Any,
) -> None:
    found.append(of(at_least_single(pattern.to(device))))
