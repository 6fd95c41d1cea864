"""What is written to the stream and read from it, against formulas written out independently."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from analyses import bandwidth
from circuits import GPT, GPTConfig, algebra
from tests.conftest import tiny, tiny_tokens


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def test_what_is_written_sums_to_the_final_stream_and_is_measured_by_its_norm():
    model, tokens = tiny(), tiny_tokens(1)
    found = bandwidth.written(model, tokens)
    _, cache = model.run_with_cache(tokens)
    assert found.attrs["error"] < 1e-10
    np.testing.assert_allclose(found.sel(component="embed"), cache["embed"][0].norm(dim=-1))
    head = cache["z", 1][0, :, 2] @ model.W_O[1, 2]
    np.testing.assert_allclose(found.sel(component="L1H2"), head.norm(dim=-1).detach())


def test_virtual_weights_are_norms_of_the_multiplied_matrices_over_chance(variant_of_any_depth):
    model = variant_of_any_depth
    found = bandwidth.virtual_weights(model)
    for writer, reader in np.ndindex(found.shape):
        names = str(found.writer.values[writer]), str(found.reader.values[reader])
        here = found.values[writer, reader]
        try:
            factors = algebra.virtual_weights(model, " > ".join(names)).factors
        except ValueError:  # the reader does not come later
            assert np.isnan(here), names
            continue
        product = torch.linalg.matrix_norm(factors[0] @ factors[-1])
        both = torch.linalg.matrix_norm(factors[0]) * torch.linalg.matrix_norm(factors[-1])
        assert here == pytest.approx(float((product / both * 12**0.5).log2()), abs=1e-8), names


def test_random_weights_read_one_another_by_chance_and_a_wired_pair_stands_out():
    cfg = GPTConfig(n_layers=2, d_model=64, n_heads=2, d_head=8, d_vocab=300, n_ctx=8)
    model = GPT(cfg).eval()
    untrained = bandwidth.virtual_weights(model)
    assert float(abs(untrained).max()) < 0.5
    with torch.no_grad():
        model.blocks[1].attn.W_K[1] = model.W_O[0, 0].T
    wired = bandwidth.virtual_weights(model)
    writer, reader = np.unravel_index(np.nanargmax(wired.values), wired.shape)
    assert (wired.writer.values[writer], wired.reader.values[reader]) == ("L0H0", "L1H1.K")


def test_a_weight_that_is_zero_is_read_by_nobody():
    model = tiny()
    with torch.no_grad():
        model.blocks[0].attn.W_O[1] = 0
    found = bandwidth.virtual_weights(model)
    assert bool(found.sel(writer="L0H1").isnull().all())
    assert not bool(found.sel(writer="L0H0", reader="logits").isnull())


def test_spectra_are_those_of_a_singular_value_decomposition():
    model = tiny()
    found = bandwidth.spectra(model)
    for name, W in (("W_E", model.W_E), ("W_U", model.W_U.T)):
        squared = torch.linalg.svdvals((W - W.mean(0)).detach()).square()
        np.testing.assert_allclose(found.sel(matrix=name), squared / squared.sum(), atol=1e-12)


def test_subspaces_apart_are_exclusive_and_the_same_subspace_is_shared():
    model = tiny()
    with torch.no_grad():
        model.W_E[:, 6:] = 0
        model.W_U[:6] = 0
    apart = bandwidth.joint_share(model)
    assert bandwidth.exclusive(apart) == apart.size == 12
    np.testing.assert_allclose(apart, [0.0] * 6 + [1.0] * 6, atol=1e-12)
    with torch.no_grad():
        model.W_U.copy_(3 * model.W_E.T)
    shared = bandwidth.joint_share(model)
    assert bandwidth.exclusive(shared) == 0 and shared.size == 6
    np.testing.assert_allclose(shared, 0.5, atol=1e-12)


def test_neurons_that_take_out_what_they_read_have_cosine_minus_one():
    model = tiny(d_mlp=7, act_fn="relu")
    assert float(abs(bandwidth.neuron_cosines(model)).max()) < 0.99
    with torch.no_grad():
        model.blocks[1].mlp.W_out[3] = -2 * model.blocks[1].mlp.W_in[:, 3]
    assert float(bandwidth.neuron_cosines(model)[1, 3]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="attention-only"):
        bandwidth.neuron_cosines(tiny())
