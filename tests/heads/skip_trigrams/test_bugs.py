"""Bugs of skip-trigrams and their grids are exact, on circuits built for them and random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses import plots, skip_trigrams
from circuits import algebra
from tests.heads.skip_trigrams.talkers import ROWS, VOCABULARY, centred, talker, trigrams

KEEP = [(" keep", to, out, 60.0, 5.0) for to, out in ((" in", " mind"), (" at", " bay"))]


def test_the_bug_of_keep_in_mind_and_keep_at_bay_is_exact():
    """GT-D, papers.md 5.2: the wrong pairs score what the right ones do, to the last bit."""
    model = trigrams(*KEEP)
    keep, at = VOCABULARY.to_single_token(" keep"), VOCABULARY.to_single_token(" in")
    assert algebra.full_QK(model)[0, 0].rows([at])[0, keep] == 60
    grid = skip_trigrams.bug_grid(
        model, "L0H0", " keep", destinations=[" in", " at"], outs=[" mind", " bay"]
    )
    assert (grid.values == 60 * (1 - 1 / ROWS) * 5 * (1 - 2 / ROWS)).all()  # less means of rows
    found = skip_trigrams.bugs(model, (0, 0), " keep", [(" in", " mind"), (" at", " bay")])
    assert found[["destination", "right", "wrong"]].values.tolist() == [
        [" in", " mind", " bay"], [" at", " bay", " mind"],
    ]  # fmt: skip
    assert (found.margin == 0).all() and (found.right_score == found.wrong_score).all()
    logits = model(model.to_tokens(" keep in"))[0, -1]
    raised = [float(logits[VOCABULARY.to_single_token(word)]) for word in (" mind", " bay")]
    assert raised == pytest.approx([5, 5]) and raised[0] == raised[1]


def test_a_bug_grid_is_a_column_times_a_row_of_the_dense_circuits():
    model = talker()
    places, outs = [" in", " at", " under"], [" mind", " bay"]
    grid = skip_trigrams.bug_grid(model, "L1H2", " keep", destinations=places, outs=outs)
    keep, *rest = (VOCABULARY.to_single_token(word) for word in (" keep", *places, *outs))
    qk = centred(algebra.full_QK(model)[1, 2].AB)[rest[:3], keep]
    ov = centred(algebra.full_OV(model)[1, 2].AB)[keep, rest[3:]]
    assert grid.dims == ("destination", "out") and grid.out.values.tolist() == outs
    np.testing.assert_allclose(grid.qk, qk, atol=1e-12)
    np.testing.assert_allclose(grid.ov, ov, atol=1e-12)
    np.testing.assert_allclose(grid, qk.clamp(min=0)[:, None] * ov, atol=1e-12)
    assert np.linalg.matrix_rank(grid.values) <= 1
    labels = plots.heatmap(grid).get_yticklabels()
    assert [label.get_text() for label in labels] == ["␣in", "␣at", "␣under"]


def test_without_a_tokenizer_tokens_go_by_their_numbers():
    model = talker()
    words = [" keep", " in", " at", " mind", " bay"]
    keep, *at, mind, bay = (VOCABULARY.to_single_token(word) for word in words)
    named = skip_trigrams.bug_grid(model, "L1H2", " keep", destinations=at, outs=[mind, bay])
    model.tokenizer = None
    grid = skip_trigrams.bug_grid(model, "L1H2", keep, destinations=at, outs=[mind, bay])
    assert np.array_equal(grid, named) and grid.attrs["source"] == str(keep)
    assert grid.destination.values.tolist() == [str(token) for token in at]
    right = [(at[0], mind), (at[1], bay)]
    assert skip_trigrams.bugs(model, "L1H2", keep, right).right.isin([str(mind), str(bay)]).all()
    assert skip_trigrams.top_entries(model, "L1H2", k=1).source.item().isdecimal()
    with pytest.raises(ValueError, match="has no tokenizer"):
        skip_trigrams.bug_grid(model, "L1H2", " keep", destinations=at, outs=[mind])


TALKER = talker()


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.integers(1, VOCABULARY.size - 1), min_size=5, max_size=5, unique=True),
    head=st.integers(0, 2),
)
def test_of_two_right_pairs_one_is_taken_for_the_wrong_one(tokens, head):
    source, *pairs = tokens
    right = [(pairs[0], pairs[1]), (pairs[2], pairs[3])]
    margins = skip_trigrams.bugs(TALKER, (0, head), source, right).margin
    assert len(margins) == 2 and margins.min() <= 1e-12


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
