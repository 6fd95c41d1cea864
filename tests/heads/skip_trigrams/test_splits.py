"""Words that the tokenizer splits are found, and scored by the dense circuits."""

import pytest

from analyses import skip_trigrams
from circuits import algebra
from tests.heads.skip_trigrams.talkers import VOCABULARY, centred, talker, trigrams


def test_split_words_are_what_the_tokenizer_makes_of_them():
    model = talker()
    found = skip_trigrams.split_tokens(model)
    by_source = found.set_index("source")
    assert by_source.loc[" ab"].tolist() == ["a", "b", 2]
    assert " two" not in by_source.index  # "two" is a token of its own
    assert " Ralph" in by_source.index
    for source, destination, out, pieces in found.itertuples(index=False):
        assert VOCABULARY.to_single_token(source) > 0 and source.startswith(" ")
        parts = VOCABULARY.to_str_tokens(source[1:], prepend_bos=False)
        assert parts[:2] == [destination, out] and len(parts) == pieces > 1
        assert "".join(parts) == source[1:]


def test_split_words_are_scored_by_the_dense_circuits():
    model = talker()
    found, words = skip_trigrams.split_table(model), skip_trigrams.split_tokens(model)
    assert len(found) == 6 * len(words)
    row = found[(found["head"] == "L1H1") & (found.source == " ab")].iloc[0]
    source, destination, out = (VOCABULARY.to_single_token(word) for word in (" ab", "a", "b"))
    qk = float(centred(algebra.full_QK(model)[1, 1].AB)[destination, source])
    ov = float(centred(algebra.full_OV(model)[1, 1].AB)[source, out])
    assert [row.qk, row.ov, row.score] == pytest.approx([qk, ov, max(qk, 0) * ov])


def test_a_head_that_spells_scores_on_the_word_it_was_built_for():
    split = skip_trigrams.split_tokens(talker()).set_index("source").loc[" Ralph"]
    built = trigrams((" Ralph", split.destination, split.out, 10.0, 3.0))
    best = skip_trigrams.split_table(built).sort_values("score").iloc[-1]
    assert (best.source, best.destination) == (" Ralph", split.destination)


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
