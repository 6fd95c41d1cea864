"""The correlation of two measures is exact, and silent about few heads."""

import numpy as np
import pytest
from xarray import DataArray

from analyses.papers.figures.induction.evaluators import correlation


def test_correlation_is_exact_and_silent_about_few_heads():
    x = DataArray(np.arange(8.0).reshape(2, 4))
    assert correlation([(x, 3 * x + 1)]) == pytest.approx((1, 1, 1))
    assert correlation([(x, -x)])[0] == pytest.approx(-1)
    assert np.isnan(correlation([(x[:1], x[:1])])).all()
