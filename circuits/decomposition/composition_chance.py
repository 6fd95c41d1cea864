"""Composition scores of random heads, in closed form.

A squared score is <P, R>. P = A^T A / ||A||^2 belongs to a writer with W_OV = A. R = M M^T /
||M||^2 belongs to a reader that reads with the matrix M. Both are symmetric, [d_model d_model], of
trace 1. If one of the two is rotated at random,

    E <P, R> = 1 / d        Var <P, R> = 2 (tr P^2 - 1/d) (tr R^2 - 1/d) / ((d - 1) (d + 2))

exactly, with d = d_model. The reason: the symmetric matrices of trace 0 are an irreducible
representation of the rotations, of dimension (d - 1) (d + 2) / 2, so all directions are equal.
Gaussian heads are rotated at random. A trained head can be rotated at random too; its singular
values stay.

tr P^2 is called the concentration of a head. It is 1 if the head writes one direction, and 1 /
d_head if it writes d_head directions equally. Squared scores are assumed to follow the gamma
distribution with this mean and variance (as a sum of squares does, Satterthwaite 1946), and pairs
are assumed to be independent.
"""

import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition.composition import VIA, chance, grams
from circuits.decomposition.turns import Offset
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, GPTConfig


def concentration(cfg: GPTConfig) -> float:
    """tr P^2 of a head of Gaussian factors, in [1 / d_model, 1].

    E tr((S T)^2) / E (tr S T)^2 of two Wishart matrices S = W_V^T W_V and T = W_O W_O^T, from
    E T B T = d (d + 1) B + d tr(B) 1: about 1 / d_head + 2 / d_model.
    """
    d, h = cfg.d_model, cfg.d_head
    return ((d + 1) * (d + h + 1) + h * d + 2) / (h * d**2 + 4 * d + 2 * h + 2)


def concentrations(model: GPT, offset: Offset = None) -> Float[Tensor, "via layer head"]:
    """tr R^2 of each head as a reader through Q, K and V, on the CPU. For V it is also tr P^2 of
    the head as a writer. With singular values sigma of W_QK or W_OV it is sum(sigma^4) /
    sum(sigma^2)^2. It is 1 / d_model for a head of zeros. With rotary positions R is the
    mean over offsets, and Q and K differ."""
    _, ways = grams(model, offset)
    shares = []
    for left, right in ways:
        R = FactoredMatrix(left.mT.cpu().double(), right.cpu().double())
        shares.append(R.norm() / R.trace())
    return torch.stack(shares).square().nan_to_num(1 / model.cfg.d_model)


def expected_score(cfg: GPTConfig) -> float:
    """The mean score of Gaussian heads, to second order: (1 - Var d^2 / 8) / sqrt(d_model), a
    little below their root mean square, `circuits.decomposition.composition.chance`."""
    return chance(cfg) * (1 - _variance_of_gaussian(cfg) * cfg.d_model**2 / 8)


def largest_score(cfg: GPTConfig, level: float) -> float:
    """The score that no pair of a model of Gaussian heads exceeds, with probability `level`. For
    heads of 5 or more dimensions it is within two per cent of the value in simulated models."""
    pairs = len(VIA) * cfg.n_heads**2 * cfg.n_layers * (cfg.n_layers - 1) // 2
    variance = torch.tensor([_variance_of_gaussian(cfg)], dtype=torch.float64)
    return _bound(variance, pairs, cfg.d_model, level)


def largest_score_rotated(model: GPT, level: float, offset: Offset = None) -> float:
    """The same as `largest_score` for the heads of this model, each rotated at random with its
    singular values kept. It is larger than for Gaussian heads if the heads write and read few
    directions."""
    d = model.cfg.d_model
    excess = (concentrations(model, offset) - 1 / d).clamp(min=0)
    earlier, later = torch.triu_indices(model.cfg.n_layers, model.cfg.n_layers, 1)
    pairs = einsum(
        excess[-1, earlier],
        excess[:, later],
        "pair writer, via pair reader -> via pair writer reader",
    )
    return _bound(_variance(pairs.flatten(), d), 1, d, level)


def _variance_of_gaussian(cfg: GPTConfig) -> float:
    excess = torch.tensor((concentration(cfg) - 1 / cfg.d_model) ** 2, dtype=torch.float64)
    return float(_variance(excess, cfg.d_model))


def _variance(excess: Float[Tensor, "*pair"], d_model: int) -> Float[Tensor, "*pair"]:
    """The variance of squared scores, from (tr P^2 - 1/d) (tr R^2 - 1/d). It is never exactly 0."""
    dimension = max((d_model - 1) * (d_model + 2) / 2, 1)
    return (excess / dimension).clamp(min=1e-12 / d_model**2)


def _bound(variance: Float[Tensor, " pair"], times: int, d_model: int, level: float) -> float:
    """The score that no pair exceeds, with probability `level`. Each pair is counted `times`
    times."""
    shape = 1 / (variance * d_model**2)  # of the gamma distribution with mean 1 / d_model
    low, high = 0.0, 1.0
    for _ in range(20):  # to a millionth
        middle = (low + high) / 2
        above = torch.special.gammaincc(shape, shape * d_model * middle**2)
        few = times * float(torch.log1p(-above).sum()) > math.log(level)
        low, high = (low, middle) if few else (middle, high)
    return high
