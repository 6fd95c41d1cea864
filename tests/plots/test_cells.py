"""Colours of cells follow values to the end of the scale and no further."""

import pytest

from analyses import html_tables
from tests.plots.parsing import FRAME


def test_colours_follow_values_to_the_end_of_the_scale_and_no_further():
    assert html_tables.colour(2.0, 2.0) == html_tables.colour(9.0, 2.0) == "rgba(0, 114, 178, 0.60)"
    assert html_tables.colour(-1.0, 2.0) == "rgba(213, 94, 0, 0.30)"
    assert html_tables.colour(0.0, 2.0).endswith("0.00)")
    with pytest.raises(ValueError, match=r"ends above 0, got 0\.0"):
        html_tables.colour(1.0, 0.0)
    html = html_tables.table(FRAME, caption="", scales={"outs": 4.0, "score": 4.0})
    assert html.count("rgba(0, 114, 178, 0.30)") == 2  # 2 of 4, as a token and as a number
    assert 'title="-1"' in html and "rgba(213, 94, 0, 0.15)" in html
    with pytest.raises(KeyError, match=r"no columns \['out'\]; there are \['source'"):
        html_tables.table(FRAME, caption="", tokens=["out"])
