"""Runs of models of every architecture and depth, and how exact sums over them are."""

import pytest
import torch

from tests.conftest import tiny_tokens


def close(a, b, dtype):
    return torch.allclose(a, b, atol=1e-10 if dtype == torch.float64 else 1e-4)


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def run(request, variant_of_any_depth):
    """A model of each architecture, the run of it, its logits and the precision."""
    model = variant_of_any_depth.to(request.param)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tiny_tokens())
        yield model, cache, logits, request.param


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def exact_run(request, variant_of_any_depth):
    """A model of each architecture, its logits, its run, and the precision of sums."""
    model = variant_of_any_depth.to(request.param)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tiny_tokens())
        # float32 sums of hundreds of paths of size 10^2 round at 1e-4 of their size
        yield model, cache, logits, 1e-10 if request.param == torch.float64 else 1e-4


def missing(parts):
    """The largest remainder, as a share of the largest part or 1."""
    return (parts.remainder.abs().max() / parts.stack.abs().max().clamp(min=1.0)).item()
