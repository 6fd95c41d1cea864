"""Muon makes each step orthogonal, and every parameter has one optimizer."""

import pytest
import torch

from circuits import GPT, GPTConfig
from circuits.training import Muon, Recipe, optimizers, orthogonalise
from tests.conftest import TINY, tiny


def test_an_orthogonalised_matrix_keeps_its_directions_and_levels_their_sizes():
    matrix = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(0))
    U, _, Vh = torch.linalg.svd(matrix, full_matrices=False)
    levelled = U.mT @ orthogonalise(matrix) @ Vh.mT
    sizes = levelled.diagonal(dim1=-2, dim2=-1)
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    assert (levelled - torch.diag_embed(sizes)).abs().max() < 1e-4
    assert orthogonalise(matrix.mT).allclose(orthogonalise(matrix).mT, atol=1e-5)


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


def test_every_parameter_is_in_exactly_one_optimizer():
    model = tiny(d_mlp=6, act_fn="gelu", smeared_keys=True)
    for muon_lr in (0.0, 0.01):
        groups = optimizers(model, Recipe(steps=1, batch_size=1, muon_lr=muon_lr))
        held = [id(p) for opt in groups for group in opt.param_groups for p in group["params"]]
        assert sorted(held) == sorted(id(p) for p in model.parameters())
        assert len(groups) == (2 if muon_lr else 1)


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
