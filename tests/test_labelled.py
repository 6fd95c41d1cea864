"""An interval of means is Student's t, and covers the truth as often as it says."""

import math

import pytest
import torch

from analyses.labelled import interval, t_quantile


def test_an_interval_of_means_is_students_t():
    draws = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = interval(draws, torch.ones(5, 1))
    assert torch.allclose((high + low) / 2, draws.mean(0))
    assert torch.allclose(high - low, 2 * 2.776445 * draws.std(0) / math.sqrt(5), rtol=1e-3)
    ends = interval(torch.tensor([0.0, 1.0]), torch.ones(2))
    assert torch.allclose(ends, torch.tensor([0.5 - 12.706205 / 2, 0.5 + 12.706205 / 2]).double())
    alike = interval(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 2, 6]))
    assert alike.tolist() == [1, 1]  # every example has the same ratio
    assert interval(torch.ones(1, 2), torch.ones(1, 1)).isnan().all()
    for degrees, known in [(1, 12.706205), (2, 4.302653), (3, 3.182446), (7, 2.364624),
                           (100, 1.983972)]:  # fmt: skip
        assert t_quantile(0.975, degrees) == pytest.approx(known, rel=2e-3)


@pytest.mark.parametrize("n", [4, 8, 32])
def test_an_interval_covers_the_truth_as_often_as_it_says(n):
    counts = torch.randint(1, 6, (n, 2000), generator=torch.Generator().manual_seed(n))
    noise = torch.randn(n, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = counts * 3.0 + noise * counts.sqrt()
    low, high = interval(sums, counts)
    assert ((low < 3) & (high > 3)).double().mean() == pytest.approx(0.95, abs=0.025)
