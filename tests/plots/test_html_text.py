"""Running text as HTML: words are words, and each token says its number."""

import numpy as np
import pytest

from analyses.plots import html_text

VALUES = np.array([np.nan, 2.0, -9.0, 0.5])
TOKENS = ["<|endoftext|>", " <b>", "\n", " end"]


def test_each_token_says_its_number_and_the_first_says_none():
    page = html_text.passage(VALUES, TOKENS, caption="a & b", scale=4.0, unit="nats", framed=[1])
    assert page.count("data-value") == page.count("background:") == 3
    assert 'data-value="+2.00 nats"' in page and 'data-value="-9.00 nats"' in page
    assert "a &amp; b" in page and "&lt;b&gt;" in page and "<b>" not in page
    assert ">BOS<" in page and ">⏎<" in page
    assert page.count("marked") == 1 and page.count("<br>") == 1
    assert "rgba(0, 114, 178, 0.30)" in page and "rgba(213, 94, 0, 0.60)" in page  # half, and full


def test_every_token_needs_a_value():
    with pytest.raises(ValueError, match="each of 4 tokens, got 3"):
        html_text.passage(VALUES[1:], TOKENS, caption="", scale=1.0, unit="nats")
