"""Every figure is drawn; its verdict is true on a known circuit and false on an untrained model,
unless it is a law."""

import json

import pytest
from typer.testing import CliRunner

from analyses import figures
from analyses.cli.main import app
from circuits import GPT, GPTConfig, ground_truth, save
from circuits.data import train_tokenizer

WORDS = "when mary and john went to the shop john gave flowers to mary while others waited there"


@pytest.fixture(scope="module")
def untrained():
    """A model with a tokenizer and room for the prompts, as initialised."""
    vocabulary = train_tokenizer([f" {word}" * 9 for word in WORDS.split()] * 3, 320)
    shape = {"n_layers": 2, "d_model": 32, "n_heads": 4, "d_head": 8, "n_ctx": 64}
    return GPT(GPTConfig(**shape, d_vocab=vocabulary.size), vocabulary).eval()


@pytest.mark.parametrize("name", figures.FIGURES)
def test_every_figure_is_drawn_and_only_laws_hold_on_an_untrained_model(name, untrained):
    drawing = figures.draw(name, untrained)
    assert drawing.caption and drawing.title and "https://" in drawing.source
    assert "paper:" in drawing.verdict.says and "here" in drawing.verdict.says
    assert drawing.verdict.holds == (name in figures.IDENTITIES), drawing.verdict.says
    assert len(drawing.figure.axes) > 0


@pytest.mark.parametrize(
    "name",
    ["framework/moves", "framework/circuits", "framework/virtual-weights",
     "framework/positions", "framework/repeats", "framework/corner", "induction/prefix-matching",
     "induction/loss-by-position", "induction/idealised"],
)  # fmt: skip
def test_the_verdict_holds_on_a_circuit_built_to_show_it(name):
    gt = ground_truth.Induction(d_vocab=70, n_ctx=70).model.float()
    verdict = figures.draw(name, gt).verdict
    assert verdict.holds, verdict.says


def cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_line_draws_lists_and_shows_heads(tmp_path, untrained):
    save(untrained, tmp_path / "model")
    done = cli(
        "draw", "framework/copying", "--model", tmp_path / "model", "--out", tmp_path / "a.svg"
    )
    assert done.exit_code == 0 and "does not hold: paper: 10 of 12" in done.output
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    listed = cli("list").output
    assert all(name in listed for name in figures.FIGURES)
    table = cli("heads", tmp_path / "model").output
    assert "L1H3" in table and "previous" in table


def test_training_on_text_gives_a_folder_that_loads(tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for i in range(60):
        (text / f"{i}.txt").write_text(f"{WORDS} {i} " * 8)
    shape = (
        "--heads",
        2,
        "--d-head",
        8,
        "--context",
        32,
        "--vocab",
        300,
        "--steps",
        4,
        "--every",
        2,
    )
    done = cli("train", "--data", text, "--out", tmp_path / "run", *shape)
    assert done.exit_code == 0, done.output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "recipe.json",
        "run.json",
        "log.jsonl",
        "history.npz",
    }
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "run/log.jsonl").read_text().splitlines()
    ]
    assert steps == [2, 4]
    again = cli("train", "--data", text, "--out", tmp_path / "run", *shape)
    assert isinstance(again.exception, ValueError) and "already holds a model" in str(
        again.exception
    )
    assert cli("train", "--out", tmp_path / "other").exit_code == 2
