"""All circuits are frozen models in float64, and the default ones have the numbers of papers."""

import dataclasses
import math

import pytest
import torch

from analyses import attention, prompts
from circuits import GPT, ground_truth
from tests.ground_truth.closed_forms import EXACT

PAPER = {"d_vocab": 20, "n_ctx": 64, "sharpness": 100.0, "gain": 12.0, "rest": 0.5}


def test_what_matches_nothing_rests_on_bos_and_moves_nothing():
    for circuit in (ground_truth.Induction(), ground_truth.PointerInduction()):
        model = circuit.model
        _, cache = model.run_with_cache(prompts.random_tokens(model, model.cfg.d_vocab - 1))
        pattern = cache["pattern", 1][:, 0]
        assert pattern[:, 1:, 0].numpy() == pytest.approx(circuit.rest_on_bos, **EXACT)
        assert cache["v", 1][:, 0].abs().max() == 0
    moved = (cache["pattern", 1] * cache["v", 1].norm(dim=-1).mT[:, :, None])[..., 0]
    assert moved.abs().max() == ground_truth.Induction().moved_from_bos


def test_the_numbers_of_the_default_circuits_are_these():
    """Those of the closed forms that are easily remembered, at V = 20, P = 64, c = 100, g = 12."""
    answers = ground_truth.Induction(**PAPER)
    assert answers.loss_before_repeat == pytest.approx(2.99573, abs=1e-5)
    assert answers.loss_after_repeat == pytest.approx(1.16733e-4, abs=1e-9)
    assert answers.k_composition == pytest.approx(0.2)
    assert (answers.ov_trace, answers.qk_trace, answers.ov_top1) == (228, 2000, 0.95)
    pointers = ground_truth.PointerInduction(**PAPER)
    assert pointers.q_composition == pytest.approx(0.12030, abs=1e-5)
    assert ground_truth.VirtualHead().v_composition == pytest.approx(0.22361, abs=1e-5)
    among = ground_truth.InductionAmongDistractors(**PAPER)
    assert among.chance_composition == pytest.approx(0.0898, abs=1e-4)


def test_both_ways_to_do_induction_have_their_roles_on_the_default_prompts():
    roles = attention.taxonomy(ground_truth.Induction().model).role
    assert roles.values.tolist() == [["previous token"], ["induction"]]
    roles = attention.taxonomy(ground_truth.PointerInduction().model).role
    assert roles.values.tolist() == [["duplicate token"], ["induction"]]


CIRCUITS = [name for name in ground_truth.__all__ if hasattr(getattr(ground_truth, name), "model")]


@pytest.mark.parametrize("name", CIRCUITS)
def test_a_circuit_is_a_frozen_gpt_in_float64(name):
    circuit = getattr(ground_truth, name)()
    model = circuit.model
    assert circuit.model is model and getattr(ground_truth, name)().model is not model
    assert isinstance(model, GPT) and not model.training
    for parameter in model.parameters():
        assert parameter.dtype == torch.float64 and not parameter.requires_grad
        assert torch.isfinite(parameter).all()


@pytest.mark.parametrize("name", CIRCUITS)
def test_circuits_are_frozen_and_those_of_the_arguments(name):
    circuit = getattr(ground_truth, name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        circuit().gain = 1.0
    assert circuit() == circuit() and circuit() != circuit(gain=3.0)


def of(name: str, **arguments):
    """A circuit's name and the arguments it is asked for."""
    return pytest.param(name, arguments, id=f"{name}-{arguments}")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        of("Induction", d_vocab=2),
        of("Induction", n_ctx=3),
        of("PointerInduction", d_vocab=0),
        of("VirtualHead", d_vocab=1),
        of("VirtualHead", n_ctx=2),
        of("SkipTrigramBug", d_vocab=5),
        of("SmearedInduction", n_ctx=1),
        of("StatisticalInduction", d_vocab=1),
        of("InductionAmongDistractors", distractors=0),
        of("Induction", gain=0.0),
        of("InductionExercise", gain=-1.0),
        of("Induction", rest=0.0),
        of("PointerInduction", rest=1.0),
        of("SmearedInduction", rest=-0.5),
        of("VirtualHead", sharpness=1.0),
        of("VirtualHead", sharpness=math.nan),
        of("StatisticalInduction", sharpness=math.inf),
        of("SkipTrigramBug", sharpness=10.0),
        of("VirtualHeadExercise", sharpness=30.0),
    ],
)
def test_bad_arguments_are_refused_in_words(name, arguments):
    (said,) = arguments
    with pytest.raises(ValueError, match=said) as error:
        getattr(ground_truth, name)(**arguments)
    assert any(word in str(error.value) for word in ("needs", "expected"))
