"""A bias that is not there is zero."""

import pytest

from tests.hooked_transformer.models import ported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_a_bias_that_is_not_there_is_zero():
    model = ported(bias=False)
    assert model.b_Q.shape == (2, 3, 5) and not model.b_O.any() and not model.b_U.any()
    assert not model.accumulated_bias(2).any()
