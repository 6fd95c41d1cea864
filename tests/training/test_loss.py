"""The loss of a batch and its gradient: in parts, in bfloat16, compiled."""

import multiprocessing
from functools import partial
from unittest import mock

import numpy as np
import torch

from circuits.data import RepeatedTokens, repeated_tokens
from circuits.training import Recipe, loss, next_token_loss, train
from tests.conftest import tiny
from tests.training.small import DATA, model

ROWS = RepeatedTokens(29, shortest=5, longest=7).batch(0, 4)


def gradients_of(model, value):
    model.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_loss_and_its_gradient_are_those_of_the_logits(variant, monkeypatch):
    """By torch's fused loss, by all logits, and by those of three positions at a time."""
    rows = ROWS
    plain = variant(rows, return_type="loss")
    expected = gradients_of(variant, plain)
    for fused, logits in ((loss.FUSED, loss.LOGITS), (False, loss.LOGITS), (False, 3 * 29)):
        monkeypatch.setattr(loss, "FUSED", fused)
        monkeypatch.setattr(loss, "LOGITS", logits)
        value = next_token_loss(variant, rows)
        assert torch.allclose(value, plain)
        for name, found in gradients_of(variant, value).items():
            assert torch.allclose(found, expected[name], atol=1e-9), name


def test_logits_in_pieces_are_not_kept_and_give_the_loss_of_autocast_too(monkeypatch):
    monkeypatch.setattr(loss, "FUSED", False)
    model, rows, kept = tiny(dtype=torch.float32), ROWS, []

    def value():
        watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with watched, torch.autocast("cpu", torch.bfloat16):
            return next_token_loss(model, rows)

    def keep(tensor):
        kept.append(tensor.shape[-1:] == (29,) and len(tensor) != 12)  # W_U is [12, 29]
        return tensor

    whole = value()
    assert any(kept) and whole.dtype == torch.float32
    kept.clear()
    monkeypatch.setattr(loss, "LOGITS", 3 * 29)
    pieces = value()
    assert kept and not any(kept) and torch.allclose(pieces, whole, rtol=1e-5)
    for a, b in zip(*(gradients_of(model, x).values() for x in (whole, pieces)), strict=True):
        assert torch.allclose(a, b, atol=0.05 * float(a.abs().max()))


def test_micro_batches_add_up_to_the_batch():
    recipes = [
        Recipe(steps=12, batch_size=8, accumulate=n, muon_lr=0.0, evaluate_every=1) for n in (1, 4)
    ]
    curves = []
    for recipe in recipes:
        records = train(model().double(), DATA, recipe)
        curves.append(torch.tensor([record["loss"] for record in records]))
    assert torch.allclose(*curves, rtol=1e-9)


def test_bfloat16_follows_the_same_curve_more_coarsely():
    plain, coarse = (
        [r["loss"] for r in train(model(), DATA, Recipe(
            steps=20, batch_size=8, evaluate_every=1, bf16=bf16))]
        for bf16 in (False, True)
    )  # fmt: skip
    assert plain != coarse and torch.allclose(torch.tensor(plain), torch.tensor(coarse), atol=0.03)


class OneLength:
    """Repeated tokens of one length: torch.compile compiles each length anew."""

    def batch(self, step, size):
        return repeated_tokens(32, 8, size, rng=np.random.default_rng(step))


def curve(compile):
    torch.set_num_threads(1)
    recipe = Recipe(steps=6, batch_size=4, evaluate_every=1, compile=compile)
    traced = partial(torch.compile, backend="eager")  # no half minute of C++
    with mock.patch("torch.compile", traced):
        return [record["loss"] for record in train(model(), OneLength(), recipe)]


def test_a_compiled_loss_follows_the_same_curve():
    with multiprocessing.get_context("forkserver").Pool(1) as pool:  # without the type checker
        compiled = pool.apply(curve, (True,))
    assert torch.allclose(torch.tensor(compiled), torch.tensor(curve(False)), atol=1e-5)
