"""Tables of one head hold the top entries of its dense circuits."""

import numpy as np
import pytest

from analyses import skip_trigrams
from circuits import algebra
from tests.heads.skip_trigrams.talkers import VOCABULARY, centred, talker


def test_a_table_of_one_source_holds_its_top_entries_and_their_products():
    model = talker()
    found = skip_trigrams.table(model, "L0H1", " keep", top=3)
    keep = VOCABULARY.to_single_token(" keep")
    qk = centred(algebra.full_QK(model)[0, 1].AB)[:, keep].topk(3)
    ov = centred(algebra.full_OV(model)[0, 1].AB)[keep].topk(3)
    assert set(found.destination) == {model.to_string(int(t)) for t in qk.indices}
    assert set(found.out) == {model.to_string(int(t)) for t in ov.indices}
    assert len(found) == 9 and found.score.is_monotonic_decreasing
    np.testing.assert_allclose(found.score, found.qk * found.ov)
    assert found.score[0] == pytest.approx(float(qk.values[0] * ov.values[0]))
    assert (skip_trigrams.table(model, "L0H1", keep, top=3) == found).all(axis=None)


@pytest.mark.parametrize("which", ["OV", "QK"])
def test_top_entries_are_the_largest_of_the_dense_circuit(which):
    model = talker()
    found = skip_trigrams.top_entries(model, (1, 0), which, k=15)
    dense = centred(getattr(algebra, f"full_{which}")(model)[1, 0].AB)
    values, flat = dense.flatten().topk(15)
    np.testing.assert_allclose(found.score, values, atol=1e-12)
    row, column = divmod(flat.tolist()[0], VOCABULARY.size)
    assert found.iloc[0, :2].tolist() == [model.to_string(row), model.to_string(column)]
    names = ["destination", "source"] if which == "QK" else ["source", "out"]
    assert found.columns.tolist() == [*names, "score"]


def test_tables_read_models_with_mlps_and_norms_straight_from_the_embedding():
    model = talker(d_mlp=7, act_fn="gelu", normalization_type="LN")
    dense = centred(algebra.full_OV(model)[1, 1].AB)
    found = skip_trigrams.top_entries(model, "L1H1", k=1)
    assert found.score[0] == pytest.approx(float(dense.max()))
    assert len(skip_trigrams.pattern_counts(model, n=3)) == 6
