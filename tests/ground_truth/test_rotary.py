import pytest
import torch

from circuits.decomposition import algebra, composition, offsets
from circuits.ground_truth import RotaryInduction, regauged
from tests.conftest import tiny_tokens

SHARP, BLURRED = RotaryInduction(), RotaryInduction(sharpness=6.0)
BOTH = pytest.mark.parametrize("circuit", [SHARP, BLURRED], ids=["sharp", "blurred"])


def said_twice(circuit, seed=0):
    generator = torch.Generator().manual_seed(seed)
    said = 1 + torch.randperm(circuit.d_vocab - 1, generator=generator)[:15]
    return torch.cat([torch.tensor([0]), said, said])[None]


def close(a, b, atol=1e-10):
    return torch.allclose(a, b, rtol=0, atol=atol)


@BOTH
def test_patterns_and_logits_are_the_closed_forms_for_any_tokens(circuit):
    for tokens in (said_twice(circuit), tiny_tokens(2, 30, d_vocab=20)):
        logits, cache = circuit.model.run_with_cache(tokens)
        assert close(cache["pattern", 0][:, 0], circuit.previous_pattern(tokens.shape[1]))
        assert close(cache["pattern", 1][:, 0], circuit.induction_pattern(tokens))
        assert close(logits, circuit.logits(tokens))


def test_it_predicts_the_second_copy_and_a_blurred_one_does_less_well():
    tokens = said_twice(SHARP)
    right = [circuit.model(tokens)[0, 16:-1].gather(-1, tokens[0, 17:, None]).min().item()
             for circuit in (SHARP, BLURRED)]  # fmt: skip
    assert right[0] == pytest.approx(12.0, abs=1e-6) and 8.0 < right[1] < 11.5


@BOTH
def test_its_weights_say_where_it_looks(circuit):
    model, kernel = circuit.model, offsets.kernel(circuit.model)
    assert close(kernel[0, 0], circuit.kernel) and kernel[0, 0].argmax() == 1
    assert close(offsets.variance(model)[0], torch.zeros(1, 64).double(), 1e-9)
    composed = algebra.K_composed_QK(model, 1, 0)
    assert composed.trace().item() == pytest.approx(circuit.qk_trace)
    for offset in (None, 0, 5, 40):
        assert composition.scores(model, offset)[1, 0, 0, 1, 0].item() == pytest.approx(
            circuit.k_composition
        )
        same = algebra.K_composed_QK(model, 1, 0, offset)[0, 0].AB
        assert close(same, circuit.sharpness * torch.eye(20).double())
    assert composition.scores(model)[::2, 0, 0, 1, 0].eq(0).all()  # neither by Q nor by V


def test_another_basis_of_each_plane_is_the_same_circuit_and_a_mix_of_planes_is_not():
    tokens, model = said_twice(BLURRED), BLURRED.model
    assert close(regauged(model)(tokens), model(tokens))
    mixed = regauged(model)
    M = torch.eye(29).double()
    M[0, 1] = 1.0  # the first dims of two planes
    attn = mixed.blocks[0].attn
    attn.W_Q[0], attn.W_K[0] = attn.W_Q[0] @ M, attn.W_K[0] @ M.inverse().T
    assert not close(mixed(tokens), model(tokens), 1e-2)


@pytest.mark.parametrize("fields", [{"d_vocab": 2}, {"sharpness": 0.0}, {"rest": -1.0}])
def test_sizes_without_a_circuit_are_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        RotaryInduction(**fields)
