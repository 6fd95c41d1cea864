"""An induction circuit whose keys and outs are ciphered translates, and copies nothing."""

import pytest
import torch

from analyses import prompts
from analyses.heads import attention, induction, translation
from circuits import ground_truth
from circuits.data import Ciphered

V = 26
CIPHER = Ciphered(V, shortest=2, longest=2, seed=3).cipher
EXACT = {"abs": 1e-9}


def translator():
    """The induction circuit in which L1H0 seeks the token whose cipher it is at, and raises the
    cipher of the token that follows."""
    model = ground_truth.Induction(V).model
    seek, previous = model.blocks[1].attn, slice(V, 2 * V)
    with torch.no_grad():
        seek.W_K[0, previous] = seek.W_K[0, previous][CIPHER]  # token t has the key of cipher[t]
        model.unembed.W_U.copy_(model.unembed.W_U[:, CIPHER.argsort()])
    return model


def test_a_translator_matches_and_copies_through_its_cipher_and_not_as_it_is():
    model = translator()
    assert translation.prefix_matching(model, CIPHER).values[1, 0] == pytest.approx(1, **EXACT)
    assert translation.prefix_matching(model, CIPHER).values[0, 0] == pytest.approx(0, **EXACT)
    literal = attention.prefix_matching(model, prompts.repeated(model, 10))
    assert literal.values[1, 0] < 0.2
    assert translation.copying(model, CIPHER).values[1, 0] == pytest.approx(1, **EXACT)
    assert induction.copying(model).values[1, 0] == pytest.approx(0, **EXACT)


def test_an_induction_head_copies_and_does_not_translate():
    model = ground_truth.Induction(V).model
    assert attention.prefix_matching(model).values[1, 0] == pytest.approx(1, **EXACT)
    assert translation.prefix_matching(model, CIPHER).values[1, 0] == pytest.approx(0, **EXACT)
    assert translation.copying(model, CIPHER).values[1, 0] == pytest.approx(0, **EXACT)


def test_the_cipher_that_changes_nothing_gives_the_scores_of_induction():
    model, same = ground_truth.Induction(V).model, torch.arange(V)
    tokens = prompts.repeated_often(model)
    ours = translation.prefix_matching(model, same, tokens)
    assert ours.values == pytest.approx(attention.prefix_matching(model, tokens).values)
    assert translation.copying(model, same).values == pytest.approx(
        induction.copying(model).values, nan_ok=True
    )
