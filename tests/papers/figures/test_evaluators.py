"""The rank correlation of two measures is exact, and silent about few heads."""

import numpy as np
import pytest
from xarray import DataArray

from analyses.labelled import rank_correlation
from analyses.papers.figures.induction.evaluators import FEWEST, correlation


def test_correlation_is_of_ranks_and_silent_about_few_heads():
    x = DataArray(np.arange(float(FEWEST)).reshape(2, -1))
    assert correlation([(x, x**3)]) == pytest.approx((1, 1, 1), abs=1e-6)
    assert correlation([(x, -x)])[0] == pytest.approx(-1)
    assert np.isnan(correlation([(x[:, 1:], x[:, 1:])])).all()
    noisy = DataArray(np.random.default_rng(0).normal(size=(2, 12)) * 8 + x.values)
    rho, low, high = correlation([(x, noisy)])
    assert low < rho < high < 1 and high - low > 0.2


def test_equal_values_share_a_rank():
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(
        4.5 / np.sqrt(4.5 * 5)
    )
    assert np.isnan(rank_correlation(np.ones(3), np.arange(3)))
