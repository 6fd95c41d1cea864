"""The options of `circuits train`: a TOML file says them, the command line overrides it."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from analyses.cli.main import app
from analyses.cli.options import RECORDED, Options, read, to_toml, together
from circuits.training import Recipe


def written(folder, text):
    file = folder / "run.toml"
    file.write_text(text)
    return file


def test_a_file_gives_options_by_their_names_and_the_command_line_overrides_them(tmp_path):
    file = written(tmp_path, 'data = ["a.txt", "b"]\nd-head = 8\nlr = 1\nbf16 = true\nout = "x"\n')
    options, given = together(read(file), {"d_head": 4, "heads": None, "data": [], "bf16": False})
    assert options == Options(data=[Path("a.txt"), Path("b")], d_head=4, lr=1.0, out=Path("x"))
    assert given == {"data", "d_head", "lr", "bf16", "out"}
    assert read(written(tmp_path, 'data = "a.txt"\nd_head = 8')) == {
        "data": [Path("a.txt")], "d_head": 8}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [
    ("layer = 2", "no option is called 'layer'; did you mean 'layers'? The options are ['out', "),
    ("layers = 2.5", "layers must be a whole number, got 2.5"),
    ("layers = true", "layers must be a whole number, got True"),
    ('lr = "much"', "lr must be a number, got 'much'"),
    ("bf16 = 1", "bf16 must be true or false, got 1"),
    ("recipe = 1", "recipe must be text, got 1"),
    ("out = 1", "out must be a path, got 1"),
    ("data = [1]", "data must be a path, or a list of paths, got [1]"),
    ("[model]\nlayers = 2", "no option is called 'model'"),
    ("d-head = 2\nd_head = 3", "d_head is given twice"),
    ("layers: 2", "run.toml is no TOML: "),
])  # fmt: skip
def test_unknown_names_and_values_of_another_type_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError) as caught:
        read(written(tmp_path, text))
    assert message in str(caught.value)


def test_options_come_back_from_the_file_that_a_run_writes(tmp_path):
    options = Options(
        out=tmp_path, data=[Path('a "b" \\ é 🎈.txt')], muon_decay=1.0, keep_weights=True
    )
    assert Options(**read(written(tmp_path, to_toml(options)))) == options
    passing = to_toml(replace(options, until=3, device="cpu"))
    assert passing == to_toml(options)  # they are not of the run


def test_a_recipe_answers_what_its_model_was_trained_with(tmp_path):
    named = read(written(tmp_path, to_toml(Options(recipe="attn-only-2l"))))
    assert named["recipe"] == "attn-only-2l" and not set(RECORDED) & set(named)
    assert set(RECORDED) < {option.name for option in fields(Options)}


def test_an_option_and_the_recipe_have_the_same_usual_value():
    usual = Recipe(steps=1, batch_size=1)
    for name in ("lr", "muon_lr", "muon_decay", "warmup", "accumulate", "bf16", "compile"):
        assert getattr(Options(), name) == getattr(usual, name)


def test_help_shows_every_option_with_its_usual_value():
    said = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output
    for option in fields(Options):
        assert f"--{option.name.replace('_', '-')}" in said
        assert not option.default or str(option.default) in said


def test_a_command_without_a_folder_or_a_kind_of_data_is_refused(tmp_path):
    for words, message in [
        (["--repeated-tokens"], "give the model's folder"),
        ([str(written(tmp_path, 'out = "x"'))], "give one of --data, --dataset"),
        ([str(tmp_path / "none.toml")], "none.toml does not exist"),
        (["--out", "x", "--repeated-tokens", "--tokenizer", "attn-only-2l", "--vocab", "300"],
         "leave out --vocab"),
    ]:  # fmt: skip
        done = CliRunner().invoke(app, ["train", *words], env={"COLUMNS": "200"})
        assert done.exit_code and message in f"{done.exception} {done.output} {done.stderr}"
