"""Tables as HTML are escaped, coloured and whole; what they show is that of the circuits."""

from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from pandas import DataFrame
from xarray import DataArray

from analyses import html_tables, skip_trigrams
from circuits import algebra
from tests.heads.skip_trigrams.talkers import VOCABULARY, centred, talker, trigrams

VOID = {"meta", "link", "br", "img"}


class Balanced(HTMLParser):
    """Fails at a tag that closes another than the last one open."""

    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(html: str) -> Balanced:
    page = Balanced()
    page.feed(html)
    page.close()
    assert page.open == []
    return page


FRAME = DataFrame(
    {"source": [" <b>", "a&\n"], "outs": [[("</td>", 2.0), (" x", -1.0)], [("\t", 0.0)]],
     "score": [4.0, 2.0]}
)  # fmt: skip


def test_a_table_is_escaped_and_shows_its_whitespace():
    html = html_tables.table(FRAME, caption="1 < 2.", tokens=["source"])
    words = parsed(html).words
    assert {"␣<b>", "a&⏎", "</td>", "␣x", "⇥"} <= set(words)
    assert "<b>" not in html and "</td>" in html
    assert any(said.startswith("1 < 2. Full colour: outs ±2 ") for said in words)
    parsed(html_tables.fragment(html, html))
    assert html_tables.fragment(html, html).count("<style>") == 1


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


@pytest.mark.parametrize("block_bytes", [1, 2**26])
def test_a_dump_holds_the_best_of_the_dense_circuits(block_bytes):
    model = talker()
    found = skip_trigrams.head_dump(model, "L0H1", sources=5, top=3, block_bytes=block_bytes)
    qk, ov = (centred(circuit(model)[0, 1].AB) for circuit in (algebra.full_QK, algebra.full_OV))
    best = qk.amax(0).clamp(min=0) * ov.amax(-1)
    np.testing.assert_allclose(found.score, best.topk(5).values, atol=1e-12)
    source = VOCABULARY.to_single_token(found.source[0])
    np.testing.assert_allclose(
        [value for _, value in found.destinations[0]], qk[:, source].topk(3).values, atol=1e-12
    )
    with pytest.raises(ValueError, match="sources is from 1"):
        skip_trigrams.head_dump(model, "L0H1", sources=0)


def test_positional_tables_have_the_highest_peaks_of_the_dense_circuit():
    model = talker()
    found = skip_trigrams.positional_table(model, "L1H0", sources=4, top=2)
    ov = centred(algebra.full_OV(model)[1, 0].AB)
    peak = ov.amax(-1) / ov.std(-1, correction=0)
    words = [word.strip() for word in map(model.to_string, range(VOCABULARY.size))]
    real = torch.tensor([word.isalpha() and len(word) > 2 for word in words])
    np.testing.assert_allclose(found.peak, peak[real].topk(4).values)


def test_the_first_norm_is_what_layer_0_sees():
    model = talker(normalization_type="LN")
    read = skip_trigrams.through_first_norm(model)
    norm, W_E = model.blocks[0].ln1, model.W_E
    seen = norm(W_E[None])[0] - norm.b
    torch.testing.assert_close(read.W_E * norm.w, seen)
    assert torch.equal(skip_trigrams.through_first_norm(talker(normalization_type=None)).W_E,
                       talker(normalization_type=None).W_E)  # fmt: skip
    assert not torch.equal(model.W_E, read.W_E)


def test_ranks_and_contrasts_of_split_words_are_those_of_the_dense_circuits():
    model = talker()
    words = skip_trigrams.split_table(model).query("head == 'L1H1'")
    source, destination, out = (
        [VOCABULARY.to_single_token(word) for word in words[name]]
        for name in ("source", "destination", "out")
    )
    qk, ov = (centred(circuit(model)[1, 1].AB) for circuit in (algebra.full_QK, algebra.full_OV))
    for i, (s, d, o) in enumerate(zip(source, destination, out, strict=True)):
        ranks = words.iloc[i][["destination_rank", "out_rank"]].tolist()
        assert ranks == [int((qk[:, s] > qk[d, s]).sum()), int((ov[s] > ov[s, o]).sum())]
    share = skip_trigrams.split_contrast(model).set_index("head").loc["L1H1", "out"]
    below = [
        sum((ov[s, o] > ov[s, other]) + 0.5 * float(ov[s, o] == ov[s, other]) for other in out)
        for s, o in zip(source, out, strict=True)
    ]
    n = len(out)
    assert share == pytest.approx(float(sum(below) - 0.5 * n) / (n * (n - 1)))


def test_a_head_built_to_spell_stands_out_and_forces_bugs():
    words = skip_trigrams.split_tokens(talker()).drop_duplicates("destination")
    words = words.drop_duplicates("out").head(2)
    (a, b) = words[["source", "destination", "out"]].values.tolist()
    built = trigrams((a[0], a[1], a[2], 9.0, 3.0), (a[0], b[1], b[2], 9.0, 3.0))
    grid = skip_trigrams.spelling_grid(built, "L0H0", a[0], n=2)
    assert grid.out.values.tolist() == [a[2], b[2]] and np.diagonal(grid.spells).all()
    crossed = grid.values[~np.eye(2, dtype=bool)]
    assert (crossed == grid.values[0, 0]).all()  # rank one: no better than the wrong ones
    assert (grid.forced.values == ~grid.spells.values).all()
    one = skip_trigrams.spelling_grid(trigrams((*a, 9.0, -3.0)), "L0H0", a[0], n=2)
    assert not one.forced.values[0, 0]
    with pytest.raises(ValueError, match="no word that splits"):
        skip_trigrams.spelling_grid(built, "L0H0", " two")
