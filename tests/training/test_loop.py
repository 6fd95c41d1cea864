"""A training run lowers the loss, the same way for the same seed, and induction forms."""

import math

import pytest

from analyses import attention, induction
from circuits import GPT, GPTConfig
from circuits.data import RepeatedTokens
from circuits.training import Recipe, train


def run(steps, **fields):
    shape = {"d_model": 32, "n_heads": 4, "d_head": 8, "d_vocab": 32, "n_ctx": 31}
    positions = {"positional_embedding_type": "shortformer_sinusoidal", "init_range": 0.1}
    model = GPT(GPTConfig(**{"n_layers": 2, **shape, **positions, **fields}))
    data = RepeatedTokens(32, shortest=4, longest=15)
    recipe = Recipe(steps=steps, batch_size=32, lr=3e-3, muon_lr=0.02, evaluate_every=steps)
    return model.eval(), list(train(model, data, recipe))


def test_the_same_seed_trains_the_same_model():
    (a, first), (b, second) = run(5), run(5)
    assert first[0]["loss"] == second[0]["loss"]
    assert all(p.equal(q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_training_lowers_the_loss():
    _, records = run(200)
    assert records[-1]["step"] == 200 and records[-1]["tokens"] > 200 * 32 * 8
    assert records[-1]["loss"] < math.log(32) - 0.05


@pytest.mark.slow
def test_an_induction_circuit_forms_with_smeared_keys_and_not_in_one_plain_layer():
    """Olsson et al. 2022, Argument 2: one layer suffices when keys see the token before."""
    smeared, _ = run(600, n_layers=1, smeared_keys=True)
    plain, _ = run(600, n_layers=1)
    assert float(attention.prefix_matching(smeared).max()) > 0.4
    assert float(attention.prefix_matching(plain).max()) < 0.2
    assert induction.repeat_gain(smeared) > induction.repeat_gain(plain) + 1.5
