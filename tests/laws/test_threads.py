"""Threads that share a model do not notice one another: each gets the numbers it gets alone."""

import pytest

from tests.benchmarks.threads import eleven, wrong
from tests.conftest import tiny

MODEL = tiny(n_ctx=32)
ONE, OTHER = eleven(MODEL, 1), eleven(MODEL, 2)
PAIRS = list(zip(ONE, [*list(OTHER)[1:], *list(OTHER)[:1]], strict=True))


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_two_threads_on_one_model_give_the_numbers_of_one(one, other):
    assert wrong((ONE[one], OTHER[other]), runs=3) == 0
