"""Lines over training have a name each or none."""

import numpy as np
import pytest
from xarray import DataArray

from analyses import plots

STEPS = DataArray(
    np.arange(6.0).reshape(3, 2),
    dims=("step", "head"),
    coords={"step": [0, 1, 2], "tokens": ("step", [0, 10**6, 2 * 10**6])},
)


def test_lines_over_training_have_a_name_each_or_none():
    for names in (["a", "b"], ("a", "b"), np.array(["a", "b"])):
        assert plots.over_training(STEPS, names=names).get_legend_handles_labels()[1] == ["a", "b"]
    one = plots.over_training(STEPS[:, 0], names="alone")
    assert one.get_legend_handles_labels()[1] == ["alone"]
    assert plots.over_training(STEPS).get_legend_handles_labels()[1] == []
    with pytest.raises(ValueError, match=r"1 names for 2 lines: \['alone'\]"):
        plots.over_training(STEPS, names="alone")
