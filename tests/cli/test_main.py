"""The short commands: models, list, heads."""

import torch
from typer.testing import CliRunner

from analyses import ablation, dynamics, importance
from analyses.cli import main as cli
from analyses.cli.main import app
from analyses.prompts import passages
from circuits import load, save
from circuits.io import folder_of, models
from circuits.training import Recipe
from tests.conftest import tiny


def test_a_model_in_a_folder_with_markup_in_its_name_has_its_heads_listed(tmp_path):
    save(tiny(dtype=torch.float32), tmp_path / "x[/nope]")
    done = CliRunner().invoke(cli.app, ["heads", str(tmp_path / "x[/nope]")])
    assert done.exit_code == 0, done.exception
    assert "[/nope]" in "".join(done.output.split())


def test_every_model_that_ships_is_listed_and_has_a_recipe_that_can_be_read():
    listed = CliRunner().invoke(app, ["models"]).output
    for name in models():
        held_out = dynamics.last_record(name)["held_out"]
        lines = [line for line in listed.splitlines() if line.split()[:1] == [name]]
        assert f"{held_out:.2f}" in lines[0]
        assert len(lines) == 1 + (folder_of(name) / dynamics.FILE).is_file()  # when heads formed
        assert Recipe.from_json((folder_of(name) / "recipe.json").read_text()).steps > 0


def test_a_named_model_says_what_its_embedding_and_its_heads_are_worth(monkeypatch):
    name = "attn-only-1l"
    monkeypatch.setattr("analyses.cli.models.WINDOWS", 4)
    done = CliRunner().invoke(app, ["models", name])
    assert done.exit_code == 0, done.exception
    model = load(name)
    tokens = passages.held_out(model)[:4]
    said = {line.split()[0]: line.split() for line in done.output.splitlines() if line.split()}
    parts = importance.without_component(model, tokens)
    for label, cell in (("embed", said["embed"]), ("L0 attn", said["L0"][1:])):
        part = parts.sel(component=label)
        assert cell[1:] == [f"{float(part.norm):.2f}", f"{float(part.rise):+.3f}"]
    rise = ablation.of_heads(model, tokens)
    assert said["L0H2"][3:] == [f"{value:+.3f}" for value in rise[0, 2].values.tolist()]
