"""Copying heads: the eigenvalues of W_E W_OV W_U, never of a d_vocab x d_vocab matrix.

A matrix that maps tokens to themselves has eigenvalues with positive real part; a random one has as
many on either side. (Elhage et al. 2021, "Copying heads",
https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from xarray import DataArray

from analyses.labelled import per_head
from circuits.algebra import full_OV
from circuits.factored import FactoredMatrix
from circuits.model import GPT


def eigenvalues(model: GPT) -> DataArray:
    """The d_head eigenvalues of each head's full OV circuit, complex, (layer, head, eigenvalue)."""
    with torch.no_grad():
        values = full_OV(model).eigenvalues
    return per_head(values, "eigenvalues", "eigenvalue", long_name="OV eigenvalues", units="logits")


def positivity(circuit: FactoredMatrix) -> torch.Tensor:
    """sum(eig) / sum(|eig|) in [-1, 1] for each leading index: 1 where every eigenvalue is
    positive, around 0 for random matrices; 0 for a circuit that is zero."""
    values = circuit.eigenvalues
    return values.sum(-1).real / values.abs().sum(-1).clamp(min=1e-12)


def score(model: GPT) -> DataArray:
    """sum(eig) / sum(|eig|) of each head's full OV circuit, (layer, head), in [-1, 1]."""
    with torch.no_grad():
        values = positivity(full_OV(model))
    words = "OV copying: sum of eigenvalues over sum of sizes"
    return per_head(values, "copying_score", long_name=words, bounds=(-1.0, 1.0), chance=0.0)
