"""Triples are the largest of all d_vocab cubed, each told by its pattern."""

import dataclasses

import numpy as np
import pytest
import torch

from analyses import skip_trigrams
from circuits import GPT, GPTConfig, algebra
from tests.heads.skip_trigrams.talkers import VOCABULARY, centred, talker, trigrams


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


def test_a_model_without_layers_has_empty_tables():
    model = talker(n_layers=0)
    assert len(skip_trigrams.pattern_counts(model)) == len(skip_trigrams.split_table(model)) == 0
