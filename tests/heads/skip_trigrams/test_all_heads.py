"""Tables of all heads are those of the dense circuits."""

import pytest

from analyses import skip_trigrams
from circuits import algebra
from circuits.data import train_tokenizer
from tests.conftest import tiny


def test_skip_trigrams_are_those_of_the_dense_circuits():
    vocabulary = train_tokenizer([" alpha beta gamma delta epsilon" * 9], 290)
    model = tiny(d_vocab=vocabulary.size, normalization_type=None)
    model.tokenizer = vocabulary
    table = skip_trigrams.copying_table(model, top=3)
    assert table["head"].tolist() == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
    for row, at in zip(table.to_dict("records"), [(i, j) for i in (0, 1) for j in (0, 1, 2)],
                       strict=True):  # fmt: skip
        source = model.to_single_token(row["source"])
        dense = algebra.full_OV(model)[at].AB
        outs = dense[source] - dense[source].mean()
        assert [score for _, score in row["outs"]] == pytest.approx(outs.topk(3).values.tolist())
        assert row["outs"][0][0] == model.to_string(int(outs.argmax()))
        assert row["own_rank"] == (outs > outs[source]).sum()
        asked = algebra.full_QK(model)[at].AB
        asked = (asked - asked.mean(-1, keepdim=True))[:, source].topk(3)
        assert [score for _, score in row["destinations"]] == pytest.approx(asked.values.tolist())
