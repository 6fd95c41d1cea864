"""A model over a corpus: window by window, in any cut and on any number of processes the same."""

import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analyses import attention, evaluation
from analyses.cli.main import app
from circuits import GPT, GPTConfig, ground_truth, save
from circuits.data import train_tokenizer
from tests.conftest import tiny, tiny_tokens
from tests.training import under_torchrun
from tests.training.under_torchrun import ROWS


def test_means_and_errors_are_those_over_windows(variant):
    seen = evaluation.evaluate_on(variant, ROWS.split(5))
    with torch.no_grad():
        loss = variant(ROWS, return_type="loss", loss_per_token=True)
    assert np.isclose(seen.held_out, loss.mean(), atol=1e-5)
    assert np.allclose(seen.loss_by_index, loss.mean(0), atol=1e-5)
    error = loss.mean(1).std() / 12**0.5
    assert np.isclose(seen.held_out_error, error, atol=1e-5) and seen.attrs["windows"] == 12
    by_window = {
        "previous token": [attention.previous_token(variant, row[None, :-1]) for row in ROWS],
        "first token": [attention.first_token(variant, row[None, :-1]) for row in ROWS],
        "induction": [attention.prefix_matching(variant, row[None, :-1]) for row in ROWS[:-1]],
    }
    for name, scores in by_window.items():
        values = np.stack(scores)
        error = values.std(0, ddof=1) / len(values) ** 0.5
        assert np.allclose(seen.attention.sel(behaviour=name), values.mean(0), atol=1e-6), name
        assert np.allclose(seen.attention_error.sel(behaviour=name), error, atol=1e-6), name
        chance = np.mean([score.attrs["chance"] for score in scores])
        assert np.isclose(seen.chance.sel(behaviour=name), chance), name


@pytest.mark.parametrize("logits", [1, 1000, 2**30])
def test_the_numbers_do_not_depend_on_how_many_logits_are_made_at_a_time(monkeypatch, logits):
    wanted = evaluation.evaluate_on(tiny(), ROWS.split(5))
    monkeypatch.setattr(evaluation, "LOGITS", logits)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = evaluation.evaluate_on(tiny(), [ROWS])
        assert torch.get_num_threads() == 3 and seen.attrs["windows"] == 12
    finally:
        torch.set_num_threads(threads)
    assert all(np.allclose(seen[name], wanted[name], atol=1e-6) for name in wanted.data_vars)


def test_the_hand_built_circuit_is_found_on_text_that_repeats():
    model = ground_truth.Induction().model
    rows = torch.cat([torch.zeros(9, 1), tiny_tokens(9, 30, 19) + 1], 1).long()
    seen = evaluation.evaluate_on(model, [rows])
    head = seen.attention.sel(layer=1, head=0, behaviour="induction")
    assert head > 0.99 > 0.5 > seen.chance.sel(behaviour="induction")
    assert seen.attention.sel(layer=0, head=0, behaviour="previous token") > 0.99


def test_an_untrained_model_attends_evenly():
    model = GPT(GPTConfig(**{"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8,
                             "d_vocab": 29, "n_ctx": 16}))  # fmt: skip
    seen = evaluation.evaluate_on(model, [ROWS])
    assert np.allclose(seen.attention, seen.chance.broadcast_like(seen.attention), atol=0.01)


def test_nothing_to_evaluate_on_is_refused():
    with pytest.raises(ValueError, match="there are no windows of text"):
        evaluation.evaluate_on(tiny(), [])


def test_two_processes_give_the_numbers_of_one(tmp_path):
    assert under_torchrun.pair(under_torchrun.evaluate, tmp_path) == [0, 0]
    alone = evaluation.evaluate_on(tiny(), ROWS.split(5))
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as together:
            for name in together.files:
                assert np.allclose(together[name], alone[name], atol=1e-12), name


def test_the_command_reads_text_and_prints_every_head(tmp_path):
    text = tmp_path / "ours.txt"
    text.write_text("the miller counted the spoons and the miller counted the forks " * 20)
    words = train_tokenizer([text.read_text()], 280)
    shape = {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_head": 4, "n_ctx": 16}
    save(GPT(GPTConfig(**shape, d_vocab=280), words), tmp_path / "model")
    run = ["evaluate", str(tmp_path / "model"), "--data", str(text)]
    said = [
        CliRunner().invoke(app, [*run, *more])
        for more in ([], ["--windows", "3"], ["--batch", "2"])
    ]
    every, three, pairs = (" ".join(one.output.split()) for one in said)  # a title may wrap
    assert "L0H0" in every and "L0H1" in every and "uniform" in every
    assert re.search(r"on 3 windows", three) and "on 3 windows" not in every
    assert pairs.split("loss")[1] == every.split("loss")[1]
    assert CliRunner().invoke(app, run[:2]).exit_code == 2
