"""Parts keep their labels, and an interval of means is Student's t."""

import math

import numpy as np
import pytest
import torch

from analyses import plots
from analyses.labelled import interval, of_parts, t_quantile
from circuits.decomposition import Parts


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


def test_parts_are_drawn_by_their_labels_and_say_what_they_miss():
    stack = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])
    parts = Parts(["embed", "L0H0"], stack, stack.sum(0) + torch.tensor([0.0, 0.25]))
    shown = of_parts(parts, "pos", long_name="logit")
    assert shown.dims == ("part", "pos") and np.array_equal(shown, stack)
    assert shown.attrs == {"long_name": "logit", "remainder": 0.25}
    labels = plots.heatmap(shown).get_yticklabels()
    assert [label.get_text() for label in labels] == ["embed", "L0H0"]
    with pytest.raises(ValueError, match=r"whole \[2\] need 1 dims after part, got \[\]"):
        of_parts(parts)
