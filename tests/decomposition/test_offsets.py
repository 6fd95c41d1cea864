import math

import pytest
import torch

from circuits.decomposition import algebra, composition, offsets
from tests.conftest import ROTARY, tiny, variant_name

KINDS = pytest.mark.parametrize("fields", ROTARY, ids=variant_name)


def close(a, b, atol=1e-12):
    return torch.allclose(a, b, rtol=0, atol=atol)


@KINDS
def test_mean_and_variance_are_those_over_all_pairs_of_tokens(fields):
    model = tiny(**fields)
    scores = algebra.full_QK(model, range(16)).AB.flatten(-2)  # offset layer head pair
    assert close(offsets.kernel(model), scores.mean(-1).movedim(0, -1))
    assert close(offsets.variance(model), scores.var(-1, correction=0).movedim(0, -1))
    assert scores.var(-1).min() > 1e-3  # else the second line says nothing


@KINDS
def test_the_planes_sum_to_the_kernel(fields):
    model = tiny(**fields)
    wavelength, size, phase, rest = offsets.planes(model)
    assert (wavelength.diff() > 0).all() and math.isclose(wavelength[0], 2 * math.pi)
    turns = 2 * math.pi * torch.arange(16).double()[:, None] / wavelength
    waves = (size[..., None, :] * (turns + phase[..., None, :]).cos()).sum(-1)
    assert close(offsets.kernel(model), rest[..., None] + waves)


@torch.no_grad()
def test_biases_are_in_the_kernel_of_a_model_without_a_norm_when_asked_for():
    model = tiny(**{**ROTARY[0], "normalization_type": None})
    scores = algebra.biased_QK(model, range(16)).AB.mean((-2, -1)).movedim(0, -1)
    assert close(offsets.kernel(model, biased=True), scores)
    assert not close(offsets.kernel(model), scores, atol=1e-3)


@torch.no_grad()
def test_from_the_mean_streams_of_a_run_it_is_the_score_of_these_means():
    model = tiny(**{**ROTARY[1], "normalization_type": None})
    _, cache = model.run_with_cache(torch.randint(0, 29, (2, 16)))
    mean = torch.stack([cache["resid_pre", layer].mean((0, 1)) for layer in range(3)])
    found = offsets.kernel(model, mean=mean)
    for layer in range(3):
        QK = algebra.QK(model, range(16)).AB[:, layer]
        assert close(found[layer], torch.einsum("a,ohab,b->ho", mean[layer], QK, mean[layer]))
    with pytest.raises(ValueError, match=r"mean stream of each layer, \[3 12\], got \[2, 12\]"):
        offsets.kernel(model, mean=mean[:2])


def test_other_positions_are_referred_to_their_own_circuit():
    with pytest.raises(ValueError, match=r"'standard': only rotary positions .* positional_QK"):
        offsets.kernel(tiny())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_raised_and_not_refused(dtype):
    exact, low = tiny(**ROTARY[0]), tiny(**ROTARY[0]).to(dtype)
    for measure in (offsets.kernel, offsets.variance):
        assert measure(low).dtype == torch.float32
        assert close(measure(low).double(), measure(exact), 1e-2)
    scores = composition.scores(low, 1)
    assert torch.allclose(scores.double(), composition.scores(exact, 1), equal_nan=True, atol=1e-2)


def test_a_model_without_layers_has_no_kernels_with_or_without_biases():
    model = tiny(n_layers=0, positional_embedding_type="rotary", d_head=4)
    for biased in (False, True):
        assert offsets.kernel(model, biased=biased).shape == (0, model.cfg.n_heads, model.cfg.n_ctx)
