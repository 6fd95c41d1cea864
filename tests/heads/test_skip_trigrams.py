"""Skip-trigram tables: exact against dense circuits, and right on circuits written by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses import plots, skip_trigrams
from circuits import GPT, GPTConfig, algebra
from circuits.data import train_tokenizer
from tests.conftest import tiny

WORDS = ["keep", "in", "at", "mind", "bay", "under", "wraps", "one", "Two", "two", "Ralph", "alpha",
         "beta", "ab", "cd"]  # fmt: skip
TEXT = [f" {word}" * 9 for word in WORDS] + ["two", "two"] * 9
VOCABULARY = train_tokenizer(TEXT, 310)
ROWS = 512


def talker(**fields) -> GPT:
    """A tiny random model that can read."""
    model = tiny(d_vocab=VOCABULARY.size, **fields).requires_grad_(False)
    model.tokenizer = VOCABULARY
    return model


def trigrams(*written: tuple[str, str, str, float, float]) -> GPT:
    """A one-layer model, float64, whose one head knows the skip-trigrams (source, destination, out)
    with these QK scores and OV effects and no others. Embeddings are one-hot; there are 512 rows,
    more than tokens, so that means over them are exact in binary."""
    V = ROWS
    cfg = GPTConfig(n_layers=1, d_model=2 * V, n_heads=1, d_head=V, d_vocab=V, n_ctx=8, bias=False,
                    normalization_type=None, positional_embedding_type="none",
                    attn_scale=1.0)  # fmt: skip
    model = GPT(cfg, VOCABULARY).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    token = torch.arange(V)
    model.embed.W_E[token, token] = 1
    model.unembed.W_U[V + token, token] = 1
    attn = model.blocks[0].attn
    for source, destination, out, qk, ov in written:
        s, d, o = (VOCABULARY.to_single_token(word) for word in (source, destination, out))
        attn.W_K[0, s, s] = attn.W_V[0, s, s] = 1
        attn.W_Q[0, d, s] = qk
        attn.W_O[0, s, V + o] = ov
    return model


KEEP = [(" keep", to, out, 60.0, 5.0) for to, out in ((" in", " mind"), (" at", " bay"))]


def centred(dense: torch.Tensor) -> torch.Tensor:
    return dense - dense.mean(-1, keepdim=True)


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


@pytest.mark.parametrize("block_bytes", [1, 10_000, 2**26])
def test_triples_are_the_largest_of_all_d_vocab_cubed(block_bytes):
    model = talker()
    found = skip_trigrams.triples(model, (0, 2), n=40, block_bytes=block_bytes)
    qk = centred(algebra.full_QK(model)[0, 2].AB).clamp(min=0)
    ov = centred(algebra.full_OV(model)[0, 2].AB)
    largest = [(qk[:, s, None] * ov[s]).flatten().topk(40).values for s in range(VOCABULARY.size)]
    np.testing.assert_allclose(found.score, torch.cat(largest).topk(40).values, atol=1e-12)
    np.testing.assert_allclose(found.score, found.qk * found.ov, atol=1e-12)


def test_triples_are_told_by_their_pattern():
    model = trigrams(
        (" one", " in", " one", 9.0, 9.0),
        (" ab", "a", "b", 8.0, 8.0),
        (" two", " in", " Two", 7.0, 7.0),
        (" alpha", " in", " beta", 6.0, 6.0),
        (" cd", "c", "D", 5.0, 5.0),
        (" keep", " in", " mind", 4.0, 4.0),
    )
    alpha, beta = (VOCABULARY.to_single_token(word) for word in (" alpha", " beta"))
    found = skip_trigrams.triples(model, "L0H0", n=6)
    assert found.pattern.tolist() == [
        "[b]...[a]->[b]", "[ab]...[a]->[b]", "[b]...[a]->[b']", "other", "[ab]...[a]->[b']",
        "other",
    ]  # fmt: skip
    assert found.score.round(-1).tolist() == [80, 60, 50, 40, 20, 20]
    model.embed.W_E[[alpha, beta]] += model.embed.W_E[[beta, alpha]]  # now each means the other
    alike, unlike = (
        skip_trigrams.triples(model, "L0H0", n=7, alike=bound).set_index("source").pattern
        for bound in (0.9, 1.01)
    )
    assert (alike[" alpha"], unlike[" alpha"]) == ("[b]...[a]->[b']", "other")
    assert alike[" beta"] == unlike[" beta"] == "[b]...[a]->[b]"


def test_the_patterns_of_a_head_count_its_largest_triples():
    model = talker()
    counts = skip_trigrams.pattern_counts(model, n=25)
    assert counts["head"].tolist() == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
    assert (counts[list(skip_trigrams.PATTERNS)].sum(axis=1) == 25).all()
    one = skip_trigrams.triples(model, "L1H1", n=25).pattern.value_counts()
    assert counts.set_index("head").loc["L1H1", "other"] == one["other"]


def test_random_heads_follow_no_pattern():
    cfg = GPTConfig(n_layers=1, d_model=64, n_heads=4, d_head=16, d_vocab=VOCABULARY.size, n_ctx=8)
    for seed in range(5):
        model = GPT(dataclasses.replace(cfg, seed=seed), VOCABULARY)
        counts = skip_trigrams.pattern_counts(model, n=100)
        assert (counts.other >= 90).all()


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


def test_tables_read_models_with_mlps_and_norms_straight_from_the_embedding():
    model = talker(d_mlp=7, act_fn="gelu", normalization_type="LN")
    dense = centred(algebra.full_OV(model)[1, 1].AB)
    found = skip_trigrams.top_entries(model, "L1H1", k=1)
    assert found.score[0] == pytest.approx(float(dense.max()))
    assert len(skip_trigrams.pattern_counts(model, n=3)) == 6


def test_a_model_without_layers_has_empty_tables():
    model = talker(n_layers=0)
    assert len(skip_trigrams.pattern_counts(model)) == len(skip_trigrams.split_table(model)) == 0
