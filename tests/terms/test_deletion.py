"""Deletion: a head that writes the negative of a term takes it out of the stream."""

import numpy as np
import pytest
import torch

from analyses import deletion
from circuits import GPT
from circuits.decomposition import head_results
from tests.conftest import tiny, tiny_tokens

ONE = tiny_tokens(batch=5, pos=1)  # a single token can only attend to itself


def copier(share: float, n_layers: int = 1) -> GPT:
    """A model of one head a layer whose first head writes `share` times what it attends to."""
    model = tiny(n_layers=n_layers, n_heads=1, d_model=6, d_head=6, normalization_type=None,
                 positional_embedding_type="none", bias=False)  # fmt: skip
    with torch.no_grad():
        model.blocks[0].attn.W_V[0] = torch.eye(6)
        model.blocks[0].attn.W_O[0] = share * torch.eye(6)
    return model


def test_a_head_that_writes_the_negative_of_the_embedding_deletes_it():
    found = deletion.deletion(copier(-0.9), ONE)
    row = found.sel(head="L0H0", term="embed")
    assert row.projection == pytest.approx(-0.9) and row.left == pytest.approx(0.9)
    assert row.low == pytest.approx(-0.9) and row.high == pytest.approx(-0.9)
    assert deletion.deleting_heads(found) == ["L0H0"]


@pytest.mark.parametrize("share", [0.9, -0.05])
def test_a_head_that_copies_or_hardly_writes_deletes_nothing(share):
    found = deletion.deletion(copier(share), ONE)
    assert found.projection[0, 0] == pytest.approx(share) and not found.deletes.any()


def test_a_head_whose_work_a_later_head_would_do_anyway_does_not_delete():
    model = copier(-0.5, n_layers=2)
    with torch.no_grad():  # the second head takes away nine tenths of whatever is there
        model.blocks[1].attn.W_V[0] = torch.eye(6)
        model.blocks[1].attn.W_O[0] = -0.9 * torch.eye(6)
    row = deletion.deletion(model, ONE).sel(head="L0H0", term="embed")
    assert row.projection == pytest.approx(-0.5) and row.left == pytest.approx(0.05)
    assert not row.deletes


def test_a_later_head_that_undoes_an_earlier_one_deletes_its_output_and_not_the_embedding():
    model = copier(1.0, n_layers=2)
    with torch.no_grad():  # the first head writes the first half of the stream twice
        model.blocks[0].attn.W_O[0] = torch.diag(torch.tensor([1.0, 1, 1, 0, 0, 0]).double())
        model.blocks[1].attn.W_V[0] = torch.eye(6)
        model.blocks[1].attn.W_O[0] = torch.diag(torch.tensor([-0.5, -0.5, -0.5, 0, 0, 0]).double())
    found = deletion.deletion(model, ONE)
    assert found.projection.sel(head="L1H0", term="L0H0") == pytest.approx(-1)
    assert found.left.sel(head="L1H0", term="L0H0") == pytest.approx(1)
    assert bool(found.deletes.sel(head="L1H0", term="L0H0"))


def test_projections_are_those_of_the_outputs_and_terms_that_come_later_are_left_out(variant):
    if not variant.cfg.n_layers:
        return
    tokens = tiny_tokens()
    found = deletion.deletion(variant, tokens)
    with torch.no_grad():
        _, cache = variant.run_with_cache(tokens)
        out, embed = head_results(variant, cache, 0)[:, :, 1], cache["embed"]
    expected = (out * embed).sum() / embed.square().sum()
    assert found.projection.sel(head="L0H1", term="embed") == pytest.approx(float(expected))
    assert np.isnan(found.projection.sel(head="L0H1", term="L0H0"))
    assert not found.deletes.sel(head="L0H1", term="L0H0")


def test_an_untrained_model_deletes_nothing():
    found = deletion.deletion(GPT(tiny(d_model=160).cfg), tiny_tokens(batch=4))
    assert not found.deletes.any()
