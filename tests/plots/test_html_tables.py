"""Tables as HTML are escaped and whole."""

import pytest
from xarray import DataArray

from analyses import html_tables
from tests.plots.parsing import FRAME, parsed


def test_a_table_is_escaped_and_shows_its_whitespace():
    html = html_tables.table(FRAME, caption="1 < 2.", tokens=["source"])
    words = parsed(html).words
    assert {"␣<b>", "a&⏎", "</td>", "␣x", "⇥"} <= set(words)
    assert "<b>" not in html and "</td>" in html
    assert any(said.startswith("1 < 2. Full colour: outs ±2 ") for said in words)
    parsed(html_tables.fragment(html, html))
    assert html_tables.fragment(html, html).count("<style>") == 1


def test_a_grid_frames_what_is_marked():
    grid = DataArray([[1.0, -2.0], [0.0, 3.0]], dims=("destination", "out"),
                     coords={"destination": ["<a>", "b"], "out": [" c", "d"]})  # fmt: skip
    html = html_tables.grid(grid, caption="", marked=grid > 2)
    assert html.count("marked") == 1 and "<a>" not in html
    assert {"+1", "-2", "+0", "+3", "␣c"} <= set(parsed(html).words)
    with pytest.raises(ValueError, match="two dims"):
        html_tables.grid(grid[0], caption="")


def test_a_page_is_whole_and_asks_for_nothing():
    page = html_tables.page("a <b>", html_tables.table(FRAME, caption=""))
    assert "a <b>" in parsed(page).words and "http" not in page
