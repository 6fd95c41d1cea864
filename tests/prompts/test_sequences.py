"""Prompts begin with the model's own BOS and end where training did."""

import numpy as np
import pytest
import torch

from analyses import attention, induction, induction_task, long_context, masks, patterns, prompts
from circuits import GPT, ground_truth
from circuits.data import Ciphered
from tests.conftest import tiny

EXACT = {"abs": 1e-9, "rel": 0}


def bos_last(model: GPT) -> GPT:
    """The model with its tokens renamed: BOS comes last, as in GPT-2, and all others one before."""
    with torch.no_grad():
        model.embed.W_E.copy_(model.W_E.roll(-1, 0))
        model.unembed.W_U.copy_(model.W_U.roll(-1, 1))
    return model


def test_prompts_begin_with_the_bos_that_the_model_has_or_that_is_said():
    model = bos_last(ground_truth.Induction().model)
    bos = model.cfg.d_vocab - 1
    said, roles = {"bos": bos}, np.array([["previous token"], ["induction"]])
    wrong = induction.copying(model)
    for given in (said, {}):  # first as an argument, then by the model
        assert (attention.taxonomy(model, **given).role == roles).all()
        stripe = induction.stripe(model, prompts.repeated(model, 19, **given))
        assert stripe.values[1, 0] == pytest.approx(stripe.attrs["perfect"], **EXACT)
        copied = induction.copying(model, prompts.random_tokens(model, 25, batch=10, **given))
        assert copied.values[1, 0] == pytest.approx(1, **EXACT)
        assert (prompts.repeated_often(model, **given)[:, 0] == bos).all()
        task = induction_task(model, 6, **given)
        for rows in (task.clean, task.corrupted):
            assert (rows[:, 0] == bos).all() and (rows[:, 1:] < bos).all()
        assert (task.clean[:, 1:] != task.corrupted[:, 1:]).all()
        model.bos = bos
    assert wrong.values[1, 0] < 0.9
    for words in (lambda: prompts.bos_of(model, 99), lambda: setattr(model, "bos", -1)):
        with pytest.raises(ValueError, match=r"bos=.*must be a token"):
            words()


def test_prompts_end_where_training_did_and_scores_say_on_how_many_positions_they_were_judged():
    model = tiny(n_ctx=200, n_layers=1, positional_embedding_type="shortformer_sinusoidal")
    long = prompts.random_tokens(model, 149, batch=2)
    assert attention.taxonomy(model).positions.values.tolist() == [65, 65, 65, 129, 101]
    assert "untrained_positions" not in attention.previous_token(model, long).attrs
    model.trained_ctx = 21
    assert attention.taxonomy(model).positions.values.tolist() == [21] * 5
    for score in (patterns.entropy, patterns.sink, patterns.moved_from_first, induction.stripe,
                  patterns.fixed_offset, induction.copying, attention.positional):  # fmt: skip
        assert score(model).attrs["positions"] <= 21
    for score in (attention.previous_token, patterns.entropy, patterns.sink, long_context.entropy,
                  attention.positional_preference, long_context.behaviours):  # fmt: skip
        attrs = score(model, long).attrs
        assert (attrs["positions"], attrs["untrained_positions"]) == (150, 129)
    with pytest.raises(ValueError, match="trained_ctx=201 must be 1 to n_ctx=200"):
        model.trained_ctx = 201


def test_ciphered_prompts_have_one_match_for_each_token():
    cipher = Ciphered(30, shortest=1, longest=1, bos=4, seed=1).cipher
    model = tiny(d_vocab=30, n_ctx=40)
    model.bos = 4
    tokens = prompts.ciphered(model, cipher, batch=5)
    n = tokens.shape[1] // 2
    assert 6 <= n <= 14 and (tokens[:, 0] == 4).all()  # 14: every other one of 29
    assert cipher[tokens[:, 1 : n + 1]].equal(tokens[:, n + 1 :])
    matches = masks.to_successors(tokens, cipher=cipher)
    assert (matches.sum(-1)[:, n + 1 :] == 1).all() and not matches[:, : n + 1].any()
    assert (matches.float().argmax(-1)[:, n + 1 :] == torch.arange(2, n + 2)).all()
    assert prompts.ciphered(model, cipher, 3, batch=2).shape == (2, 7)
    for wrong in (torch.arange(30), cipher[:29], cipher.roll(1)):
        with pytest.raises(ValueError, match="permutation of 30 tokens in which BOS, 4, stays"):
            prompts.ciphered(model, wrong)
