"""Composition scores of heads that know nothing of each other, in closed form.

A squared score is <P, R>, with P = A^T A / ||A||^2 of a writer's W_OV = A and R = M M^T / ||M||^2
of the matrix M that a reader reads it with, both symmetric, [d_model d_model], of trace 1. If one
of the two is turned at random,

    E <P, R> = 1 / d        Var <P, R> = 2 (tr P^2 - 1/d) (tr R^2 - 1/d) / ((d - 1) (d + 2))

exactly, with d = d_model: the symmetric matrices of trace 0 are an irreducible representation of
the rotations, of dimension (d - 1) (d + 2) / 2, so none of their directions is favoured. Gaussian
heads are turned at random; the heads of a trained model can be, with their spectra as they are.

tr P^2 is called a head's concentration: 1 if it writes one direction, 1 / d_head if it writes
d_head of them alike. A squared score is taken to follow the gamma distribution of this mean and
variance (as for a sum of squares, Satterthwaite 1946), and pairs to be independent of each other.
"""

import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition import algebra
from circuits.decomposition.composition import VIA, chance
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, GPTConfig


def concentration(cfg: GPTConfig) -> float:
    """tr P^2 of a head of Gaussian factors, in [1 / d_model, 1].

    E tr((S T)^2) / E (tr S T)^2 of two Wishart matrices S = W_V^T W_V and T = W_O W_O^T, from
    E T B T = d (d + 1) B + d tr(B) 1: about 1 / d_head + 2 / d_model.
    """
    d, h = cfg.d_model, cfg.d_head
    return ((d + 1) * (d + h + 1) + h * d + 2) / (h * d**2 + 4 * d + 2 * h + 2)


def concentrations(model: GPT) -> Float[Tensor, "matrix layer head"]:
    """tr P^2 of each head's W_QK and W_OV, in this order, on the CPU: the sum of sigma^4 over the
    square of the sum of sigma^2 of its singular values. 1 / d_model for a head of zeros."""
    products = (algebra.QK(model), algebra.OV(model))
    shares = []
    for factors in (product.factors for product in products):
        A = FactoredMatrix(*(factor.cpu().double() for factor in factors))
        shares.append(FactoredMatrix(*A.T.factors, *A.factors).norm() / A.norm().square())
    return torch.stack(shares).square().nan_to_num(1 / model.cfg.d_model)


def expected(cfg: GPTConfig) -> float:
    """The mean score of Gaussian heads, to second order: (1 - Var d^2 / 8) / sqrt(d_model), a
    little below their root mean square, `circuits.decomposition.composition.chance`."""
    return chance(cfg) * (1 - _variance_of_gaussian(cfg) * cfg.d_model**2 / 8)


def largest(cfg: GPTConfig, level: float) -> float:
    """The score that no pair of a model of Gaussian heads exceeds, with probability `level`: within
    a per cent or two of what drawn models show, for heads of 5 dimensions or more."""
    pairs = len(VIA) * cfg.n_heads**2 * cfg.n_layers * (cfg.n_layers - 1) // 2
    variance = torch.tensor([_variance_of_gaussian(cfg)], dtype=torch.float64)
    return _unreached(variance, pairs, cfg.d_model, level)


def largest_rotated(model: GPT, level: float) -> float:
    """As `largest`, of the heads of this model, each turned at random, with their spectra as they
    are: the higher bar, because trained heads write and read few directions."""
    d = model.cfg.d_model
    QK, OV = (concentrations(model) - 1 / d).clamp(min=0)
    earlier, later = torch.triu_indices(model.cfg.n_layers, model.cfg.n_layers, 1)
    read = torch.stack([QK, QK, OV])[:, later]  # transposed for K: a spectrum is the same
    pairs = einsum(OV[earlier], read, "pair writer, via pair reader -> via pair writer reader")
    return _unreached(_variance(pairs.flatten(), d), 1, d, level)


def _variance_of_gaussian(cfg: GPTConfig) -> float:
    excess = torch.tensor((concentration(cfg) - 1 / cfg.d_model) ** 2, dtype=torch.float64)
    return float(_variance(excess, cfg.d_model))


def _variance(excess: Float[Tensor, "*pair"], d_model: int) -> Float[Tensor, "*pair"]:
    """Of squared scores, from (tr P^2 - 1/d) (tr R^2 - 1/d); never quite 0."""
    dimension = max((d_model - 1) * (d_model + 2) / 2, 1)
    return (excess / dimension).clamp(min=1e-12 / d_model**2)


def _unreached(variance: Float[Tensor, " pair"], times: int, d_model: int, level: float) -> float:
    """The score that none of these pairs exceeds, `times` of each, with probability `level`."""
    shape = 1 / (variance * d_model**2)  # of the gamma distribution with mean 1 / d_model
    low, high = 0.0, 1.0
    for _ in range(20):  # to a millionth
        middle = (low + high) / 2
        above = torch.special.gammaincc(shape, shape * d_model * middle**2)
        few = times * float(torch.log1p(-above).sum()) > math.log(level)
        low, high = (low, middle) if few else (middle, high)
    return high
