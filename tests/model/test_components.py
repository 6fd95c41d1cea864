"""A head has one name in three forms."""

from circuits.model import Head, components
from tests.conftest import tiny


def test_heads_have_one_name_in_three_forms():
    cfg = tiny().cfg
    assert components.head(cfg, "L1H2") == components.head(cfg, (1, 2)) == Head(1, 2) == (1, 2)
    assert str(Head(1, 2)) == "L1H2"
