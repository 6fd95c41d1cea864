"""Chance of composition is a closed form that random heads reach as often as it says."""

import dataclasses

import numpy as np
import pytest
import torch

from analyses import head_composition
from circuits import GPT, algebra
from circuits.decomposition import composition_chance
from tests.decomposition.initialised import SMALL, initialised

BARE = dataclasses.replace(SMALL, normalization_type=None)


def rotations(n, size, seed=0):
    """Random orthogonal matrices: Q of Gaussian ones, with the signs that make R positive."""
    noise = torch.randn(n, size, size, generator=torch.Generator().manual_seed(seed)).double()
    Q, R = torch.linalg.qr(noise)
    return Q * R.diagonal(dim1=1, dim2=2).sign()[:, None]


def test_mean_and_variance_of_a_turned_head_are_the_closed_form():
    d = 5
    A, M = torch.randn(2, d, d, generator=torch.Generator().manual_seed(1)).double()
    P, R = A.T @ A / A.square().sum(), M @ M.T / M.square().sum()
    U = rotations(20_000, d)
    squared = (P @ U @ R @ U.mT).diagonal(dim1=1, dim2=2).sum(1)
    excess = ((P @ P).trace() - 1 / d) * ((R @ R).trace() - 1 / d)
    assert squared.mean() == pytest.approx(1 / d, rel=0.01)
    assert squared.var() == pytest.approx(2 * excess.item() / ((d - 1) * (d + 2)), rel=0.03)


@pytest.mark.parametrize("d_head", [1, 4, 11])
def test_the_concentration_of_gaussian_heads_is_the_closed_form(d_head):
    """E ||A^T A||^2 / E ||A||^4, also where d_head is more than d_model = 8."""
    cfg = dataclasses.replace(BARE, d_model=8, n_heads=4000, d_head=d_head, n_layers=1)
    model = GPT(cfg).requires_grad_(False)
    own = composition_chance.concentrations(model)[:, 0]
    size = torch.stack([algebra.QK(model).norm()] * 2 + [algebra.OV(model).norm()])[:, 0] ** 4
    averaged = ((own * size).sum(-1) / size.sum(-1)).tolist()
    assert averaged == pytest.approx([composition_chance.concentration(cfg)] * 3, rel=0.03)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_closed_quantile_is_exceeded_by_random_models_as_often_as_its_level_says(level):
    """Of 40 random models each; pairs of a model are not quite independent."""
    shape = (("n_layers", 2), ("d_model", 64), ("n_heads", 4), ("d_head", 16))
    count = sum(
        head_composition._largest_at_random(shape, torch.float32, None, 500 + i)
        > composition_chance.largest_score(SMALL, level)
        for i in range(40)
    )
    error = (40 * level * (1 - level)) ** 0.5
    assert abs(count - 40 * (1 - level)) < 3 * error


def test_the_mean_of_random_scores_is_the_closed_form_a_little_below_their_root_mean_square():
    small = dataclasses.replace(BARE, d_model=8, d_head=3, n_heads=40)
    models = (GPT(dataclasses.replace(small, seed=seed)) for seed in range(8))
    means = [float(head_composition.raw(model, null="closed").mean()) for model in models]
    expected = composition_chance.expected_score(small)
    assert expected < 0.96 * 8**-0.5 and np.mean(means) == pytest.approx(expected, rel=0.01)


def test_the_bar_of_turned_heads_is_what_turning_them_shows():
    model = initialised(1)[0].double().requires_grad_(False)
    for block in model.blocks:
        block.attn.W_V[..., 3:] *= 0.1
    level, U = 0.5, rotations(60 * 4, 64).unflatten(0, (60, 4))
    bar = composition_chance.largest_score_rotated(model, level)
    turned, values = GPT(model.cfg).double().requires_grad_(False), []
    turned.load_state_dict(model.state_dict())
    for one in U:
        for name in ("W_Q", "W_K", "W_V"):  # the readers of layer 1, each turned as a whole
            getattr(turned.blocks[1].attn, name).copy_(one @ getattr(model.blocks[1].attn, name))
        values.append(float(head_composition.raw(turned, null="closed").max()))
    assert abs(sum(value > bar for value in values) - 30) < 3 * 60**0.5 / 2
