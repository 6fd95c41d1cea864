"""Built circuits among distractors and in other bases: hidden, and still the same."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from analyses import attention, copying, induction, prompts
from circuits import algebra, composition, ground_truth
from circuits.matrices import FactoredMatrix
from tests.conftest import tiny, tiny_tokens
from tests.ground_truth.closed_forms import (
    EXACT,
    compositions,
    few,
    losses_by_order,
    said_twice,
    sizes,
)


@few
@given(sizes, st.integers(1, 4), st.integers(0, 39))
def test_distractors_change_nothing_of_the_circuit_and_pass_no_threshold(
    arguments, distractors, seed
):
    d_vocab = max(arguments["d_vocab"], 16)  # of few tokens a random head finds copies by chance
    arguments = {**arguments, "d_vocab": d_vocab, "distractors": distractors, "seed": seed}
    answers = ground_truth.InductionAmongDistractors(**arguments)
    model = answers.model
    roles = attention.taxonomy(model).role.values
    assert roles[answers.previous_head] == "previous token"
    assert roles[answers.induction_head] == "induction"
    assert (roles != "-").sum() == 2
    prefix = attention.prefix_matching(model).values[answers.induction_head]
    assert prefix == pytest.approx(answers.prefix_matching, **EXACT)
    scores = copying.score(model).values
    assert scores[answers.induction_head] == pytest.approx(1, **EXACT)
    assert abs(scores).sum() == pytest.approx(1, **EXACT)
    tokens = said_twice(model)
    assert losses_by_order(model, tokens) == pytest.approx(answers.loss_by_order, **EXACT)

    def silence(z, hook):
        mine = answers.previous_head if hook.layer() == 0 else answers.induction_head
        alone = torch.zeros_like(z)
        alone[:, :, mine[1]] = z[:, :, mine[1]]
        return alone

    alone = model.run_with_hooks(tokens, fwd_hooks=[("*.hook_z", silence)])
    assert (alone - model(tokens)).abs().max().item() == pytest.approx(answers.effect, abs=1e-9)


def test_true_k_composition_stands_out_of_fifty_distractors_at_chance():
    arguments = {"distractors": 50}
    answers = ground_truth.InductionAmongDistractors(**arguments)
    model = answers.model
    writer, reader = answers.previous_head[1], answers.induction_head[1]
    true = compositions(model, writer, reader)
    assert true["k"] == pytest.approx(answers.k_composition, **EXACT)
    assert true["q"] == true["v"] == 0
    via_k = composition.scores(model)[1, 0, :, 1, :]  # writer reader
    chance = torch.cat([via_k[writer, :reader], via_k[writer, reader + 1 :]])
    assert chance.mean().item() == pytest.approx(answers.chance_composition, rel=0.02)
    assert chance.max() < 0.5 * true["k"]
    assert via_k[:50, 7].mean().item() == pytest.approx(answers.chance_composition, rel=0.1)
    assert via_k[:50, reader].max() == 0


def test_distractors_are_as_large_as_the_heads_they_hide():
    model = ground_truth.InductionAmongDistractors(distractors=3).model
    for circuit in (model.QK, model.OV):
        for layer in range(2):
            norms = [float(circuit[layer, head].norm()) for head in range(4)]
            assert norms == pytest.approx([norms[0]] * 4)


CIRCUITS = [
    "Induction",
    "PointerInduction",
    "VirtualHead",
    "SkipTrigramBug",
    "SmearedInduction",
    "InductionAmongDistractors",
    "PointerInductionExercise",
]


@pytest.mark.parametrize("disguise", [ground_truth.rotated, ground_truth.regauged])
@pytest.mark.parametrize("name", CIRCUITS)
def test_every_score_of_a_circuit_stays_when_its_coordinates_change(name, disguise):
    model = getattr(ground_truth, name)().model
    hidden = disguise(model, seed=3)
    assert not torch.allclose(hidden.W_V, model.W_V, atol=0.1)
    tokens = prompts.repeated(model, 5)
    assert torch.allclose(hidden(tokens), model(tokens), atol=1e-9)
    taxonomy = attention.taxonomy(model).values
    assert attention.taxonomy(hidden).values == pytest.approx(taxonomy, abs=1e-9)
    for score in (copying.score, induction.copying):
        assert score(hidden).values == pytest.approx(score(model).values, abs=1e-9)
    for circuit in (algebra.full_QK, algebra.full_OV):
        assert torch.allclose(circuit(hidden).AB, circuit(model).AB, atol=1e-9)
    before, after = composition.scores(model), composition.scores(hidden)
    assert torch.allclose(before, after, atol=1e-7, equal_nan=True)  # the square root of rounding


@pytest.mark.parametrize("disguise", [ground_truth.rotated, ground_truth.regauged])
@pytest.mark.parametrize(
    "fields",
    [
        {"d_mlp": 7, "act_fn": "gelu", "smeared_keys": True},
        {"positional_embedding_type": "sinusoidal"},
        {"positional_embedding_type": "shortformer_sinusoidal", "normalization_type": "RMSPre"},
        {"positional_embedding_type": "none"},
        {"n_layers": 0},
    ],
    ids=str,
)
def test_any_model_without_a_privileged_basis_is_the_same_in_disguise(fields, disguise):
    model = tiny(**{"normalization_type": None, **fields})
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    hidden = disguise(model)
    assert torch.allclose(hidden(tiny_tokens()), model(tiny_tokens()), atol=1e-9)
    assert hidden.W_E.dtype == model.W_E.dtype and not hidden.training
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), f"{name} of the model itself has changed"


def test_disguises_differ_by_seed_and_only_by_it():
    model = ground_truth.Induction().model
    for disguise in (ground_truth.rotated, ground_truth.regauged):
        assert torch.equal(disguise(model, 1).W_V, disguise(model, 1).W_V)
        assert not torch.equal(disguise(model, 1).W_V, disguise(model, 2).W_V)
    random = ground_truth.InductionAmongDistractors
    assert torch.equal(random(seed=1).model.W_V, random(seed=1).model.W_V)
    assert not torch.equal(random(seed=1).model.W_V, random(seed=2).model.W_V)


def test_a_norm_with_a_basis_of_its_own_is_not_rotated():
    for norm in ("LN", "LNPre", "RMS"):
        with pytest.raises(ValueError, match=f"'{norm}' works in one basis"):
            ground_truth.rotated(tiny(normalization_type=norm))


def test_cyclic_rotation_of_factors_keeps_the_trace_and_not_the_norm():
    """The bug of the framework paper's first composition diagram: ||BCDA|| is not ||ABCD||."""
    model = ground_truth.InductionAmongDistractors().model
    A, B = model.W_V[0, 0], model.W_O[0, 0]
    C, D = model.W_K[1, 1], model.W_Q[1, 1].T
    true, turned = FactoredMatrix(A @ B, C @ D), FactoredMatrix(B @ C, D @ A)
    assert float(true.trace()) == pytest.approx(float(turned.trace()))
    assert float(true.norm()) != pytest.approx(float(turned.norm()), rel=0.05)
    assert float(true.norm()) == pytest.approx(float((A @ B @ C @ D).norm()))
