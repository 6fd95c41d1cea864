"""No verdict holds of a toy that was hardly trained."""

import pytest
from xarray import DataArray

from analyses import figures
from analyses.papers.figures.toys.bietti import formation

TRAINED = [name for name, record in figures.EVERY.items()
           if record.kind == "toy" and name != "circuits/known"]  # fmt: skip


def test_formation_is_where_a_recall_rises_for_good():
    run = DataArray([0.0, 0.6, 0.2, 0.7, 0.9], dims="step", coords={"step": range(5)})
    assert formation(run) == 3
    assert formation(run[:3]) is None and formation(run[3:]) == 3


@pytest.mark.parametrize("name", TRAINED)
def test_no_verdict_holds_after_two_steps(name):
    found = figures.EVERY[name].find(steps=2)
    assert found.holds is False, found.here
    assert found.caption and found.here and len(found.picture().axes) > 1
