"""The short commands: models, list, heads."""

import torch
from typer.testing import CliRunner

from analyses import dynamics
from analyses.cli import main as cli
from analyses.cli.main import app
from circuits import save
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
