import math

import pytest
import torch

from analyses import induction
from circuits import GPT, GPTConfig
from circuits.data import RepeatedTokens
from circuits.training import Muon, Recipe, loss, next_token_loss, optimizers, orthogonalised, train
from tests.conftest import TINY, tiny

DATA = RepeatedTokens(29, shortest=5, longest=7)


def gradients_of(model, value):
    model.zero_grad()
    value.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_the_loss_and_its_gradient_are_those_of_the_logits(variant, monkeypatch):
    """By torch's fused loss, by all logits, and by those of three positions at a time."""
    rows = DATA.batch(0, 4)
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
    model, rows, kept = tiny(dtype=torch.float32), DATA.batch(0, 4), []

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


def test_an_orthogonalised_matrix_keeps_its_directions_and_levels_their_sizes():
    matrix = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    levelled = U.mT @ orthogonalised(matrix) @ Vh.mT
    sizes = levelled.diagonal(dim1=-2, dim2=-1)
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    assert (levelled - torch.diag_embed(sizes)).abs().max() < 1e-4
    assert orthogonalised(matrix.mT).allclose(orthogonalised(matrix).mT, atol=1e-5)


def test_muon_takes_each_head_apart():
    """Scaling one head's gradient must not change the step of any head."""
    steps = []
    for factor in (1.0, 100.0):
        weight = torch.nn.Parameter(torch.zeros(3, 8, 4))
        weight.grad = torch.randn(3, 8, 4, generator=torch.Generator().manual_seed(0))
        weight.grad[1] *= factor
        Muon([weight], lr=0.1).step()
        steps.append(weight.detach())
    assert torch.allclose(*steps, atol=1e-5)


@pytest.mark.parametrize("decay", [0.5, 2.0])
def test_decay_bounds_what_a_matrix_can_grow_to_under_one_gradient(decay):
    """W <- (1 - lr decay) W - lr s U V^T with s within 0.7 to 1.2 ends on norms of s / decay."""
    weight = torch.nn.Parameter(torch.zeros(2, 8, 4))
    opt = Muon([weight], lr=0.1, decay=decay)
    weight.grad = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(0))
    for _ in range(200):
        opt.step()
    norms = torch.linalg.matrix_norm(weight.detach(), 2) * decay
    assert norms.min() > 0.6 and norms.max() < 1.3


def test_only_matrices_that_write_to_the_stream_decay():
    model = GPT(GPTConfig(**TINY, d_mlp=7, act_fn="gelu"))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    for opt in optimizers(model, Recipe(steps=1, batch_size=1, muon_decay=2.0)):
        for group in opt.param_groups:
            for weight in group["params"]:
                weight.grad = torch.zeros_like(weight)
        opt.step()
    for name, weight in model.state_dict().items():
        share = 1 - 0.01 * 2 if name.rpartition(".")[2] in ("W_V", "W_O", "W_out") else 1.0
        assert torch.allclose(weight, before[name] * share), name


def test_an_init_of_its_own_changes_the_embedding_alone():
    usual = GPT(GPTConfig(**TINY))
    louder = GPT(GPTConfig(**TINY, embed_init_range=0.2)).state_dict()
    for name, weight in usual.state_dict().items():
        assert torch.allclose(louder[name], weight * (10 if name == "embed.W_E" else 1)), name


def test_every_parameter_is_in_exactly_one_optimizer():
    model = tiny(d_mlp=6, act_fn="gelu", smeared_keys=True)
    for muon_lr in (0.0, 0.01):
        groups = optimizers(model, Recipe(steps=1, batch_size=1, muon_lr=muon_lr))
        held = [id(p) for opt in groups for group in opt.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        assert len(groups) == (2 if muon_lr else 1)


def test_the_schedule_warms_up_and_ends_on_its_final_share():
    recipe = Recipe(steps=1000, batch_size=1, warmup=10, final=0.1)
    shares = [recipe.schedule(step) for step in range(1000)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == pytest.approx(1.0, abs=1e-3)
    assert shares[-1] == pytest.approx(0.1, abs=1e-3)
    assert shares[10:] == sorted(shares[10:], reverse=True)


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
    assert float(induction.prefix_matching(smeared).max()) > 0.4
    assert float(induction.prefix_matching(plain).max()) < 0.2
    assert induction.repeat_gain(smeared) > induction.repeat_gain(plain) + 1.5
