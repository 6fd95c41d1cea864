"""Old names of singular vectors mean what they meant."""

import pytest
import torch

from circuits.hooked_transformer import FactoredMatrix
from tests.hooked_transformer.models import biased

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_old_names_of_singular_vectors_mean_what_they_meant():
    product = biased().OV.T[1, 0]
    U, S, V = product.svd()
    assert type(product) is FactoredMatrix and V.equal(product.Vh) and V.equal(product.V)
    assert torch.allclose(U * S @ V.mT, product.AB)
    for same in (product.make_even(), product.unsqueeze(0)[0]):
        assert torch.allclose(same.AB, product.AB)
    assert torch.allclose(product.collapse_l().norm(), product.norm())
    assert torch.allclose(product.get_corner(), product.AB[:3, :3])
    assert not product.has_leading_dims and biased().OV.has_leading_dims
