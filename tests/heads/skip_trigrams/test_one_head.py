"""Tables of one head hold the top entries of its dense circuits."""

import numpy as np
import pytest
import torch

from analyses import skip_trigrams
from circuits import algebra, load
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


def test_a_dump_may_hold_few_blanks():
    model = load("attn-only-1l")
    every = skip_trigrams.head_dump(model, "L0H0", sources=300)
    few = skip_trigrams.head_dump(model, "L0H0", sources=40, blanks=2)
    blank = ~every.source.str.strip().astype(bool)
    assert blank.sum() > 2
    expected = every[~blank | (blank.cumsum() <= 2)].source[:40]
    assert few.source.tolist() == expected.tolist()


def test_positional_tables_have_the_highest_peaks_of_the_dense_circuit():
    model = talker()
    found = skip_trigrams.positional_table(model, "L1H0", sources=4, top=2)
    ov = centred(algebra.full_OV(model)[1, 0].AB)
    peak = ov.amax(-1) / ov.std(-1, correction=0)
    words = [word.strip() for word in map(model.to_string, range(VOCABULARY.size))]
    real = torch.tensor([word.isalpha() and len(word) > 2 for word in words])
    np.testing.assert_allclose(found.peak, peak[real].topk(4).values)
