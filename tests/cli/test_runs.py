"""`circuits train` on text of ours: what a folder holds, and that a run cut off is a run whole."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from analyses import dynamics, losses, runs
from analyses.cli.corpus import Corpus
from analyses.cli.main import app
from circuits import load
from circuits.io import folder_of

SHAPE = ["--heads", "2", "--d-head", "8", "--context", "16", "--vocab", "290"]
HOW = ["--steps", "6", "--batch-size", "4", "--every", "2", "--examples", "8"]


def circuits(*options):
    return CliRunner().invoke(app, ["train", *map(str, options)])


def trained(out, text, *options):
    done = circuits("--out", out, "--data", text, *options)
    assert done.exit_code == 0, done.exception or done.output
    return done.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory, text):
    out = tmp_path_factory.mktemp("runs") / "whole"
    trained(out, text, *SHAPE, *HOW)
    return out


def test_a_finished_run_leaves_a_model_its_recipe_its_log_and_its_history(whole):
    assert sorted(path.name for path in whole.iterdir()) == [
        "config.json", "history.npz", "log.jsonl", "model.safetensors", "recipe.json", "run.json",
        "run.toml", "tokenizer.json",
    ]  # fmt: skip
    assert load(whole).cfg.n_layers == 2 and dynamics.last_record(whole)["step"] == 6
    assert dynamics.history(whole).step.values.tolist() == list(range(7))
    about = json.loads((whole / "run.json").read_text())
    assert about["data"] == ["ours.txt"]  # its name, not where it lay


def log(folder):
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in record.items() if k != "seconds"} for record in records]


def test_a_run_cut_off_goes_on_with_the_same_command(tmp_path, text, whole):
    out = tmp_path / "pieces"
    for until in (1, 5):
        trained(out, text, *SHAPE, *HOW, "--until", until)
        assert load(out) if until == 5 else not (out / "config.json").exists()
    trained(out, text, *SHAPE, *HOW)
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert log(out) == log(whole)
    seen = [dynamics.history(folder).drop_attrs(deep=False) for folder in (out, whole)]
    assert seen[0].identical(seen[1])


def test_an_unfinished_run_is_not_gone_on_with_in_another_way(tmp_path, text):
    trained(tmp_path, text, *SHAPE, *HOW, "--until", 4)
    before = sorted(file.read_bytes() for file in (tmp_path / "snapshots").iterdir())
    done = circuits("--out", tmp_path, "--data", text, *SHAPE, *HOW, "--lr", 0.5)
    assert "recipe: lr was 0.002 and is 0.5 now" in str(done.exception)
    assert sorted(file.read_bytes() for file in (tmp_path / "snapshots").iterdir()) == before


def test_a_recorded_run_reruns_to_the_same_losses(tmp_path, text, whole):
    said = trained(tmp_path, text, "--recipe", whole, "--until", 6, "--examples", 0)
    assert load(tmp_path).cfg == load(whole).cfg
    again = [record["loss"] for record in log(tmp_path)]
    first = dynamics.history(whole).step_loss.values
    assert again == pytest.approx(first.reshape(3, 2).mean(1), abs=1e-5)
    assert "every = 2\n" in (tmp_path / "run.toml").read_text()  # that of the record
    (apart,) = re.findall(r"the first 6 losses are within (\S+) nats of the record", said)
    assert float(apart) < 1e-6  # float32, as they are kept


def test_weights_of_every_step_are_kept_where_asked(tmp_path, text):
    trained(tmp_path, text, *SHAPE, *HOW, "--keep-weights", "--layers", 0, "--mlp", 0)
    names = sorted(path.name for path in (tmp_path / "weights").iterdir())
    assert names == [f"weights-{step:08d}.safetensors" for step in range(7)]


def test_a_finished_run_is_measured_anew_from_the_weights_it_kept(tmp_path, text, whole):
    out = tmp_path / "out"
    trained(out, text, *SHAPE, *HOW, "--keep-weights")
    before = dynamics.history(out)
    done = CliRunner().invoke(
        app, ["measure", str(out), "--held-out", str(text), "--examples", "6"]
    )
    assert done.exit_code == 0, done.exception or done.output
    after = dynamics.history(out)
    same = ["step_loss", "train_loss"]
    assert after[same].identical(before[same]) and after.tokens.equals(before.tokens)
    assert np.allclose(after.prefix_matching, before.prefix_matching, atol=2e-3)  # half precision
    assert after.token_loss.sizes["token"] == 6 * 16 and before.token_loss.sizes["token"] == 8 * 16
    rows = Corpus(data=[text], held_out=[text]).evaluation(load(out).tokenizer, 16, 6)
    assert np.isclose(after.held_out[-1], losses.of_tokens(load(out), rows).mean(), atol=1e-3)
    assert not list(out.glob(".part*"))
    few = ["measure", str(out), "--held-out", str(text), "--examples", "6", "--every", "4"]
    assert CliRunner().invoke(app, few).exit_code == 0
    thinned = dynamics.history(out)
    assert thinned.step.values.tolist() == [0, 4, 6]
    assert thinned.held_out.equals(after.held_out.sel(step=[0, 4, 6]))
    assert "every n-th step" in str(CliRunner().invoke(app, [*few[:-1], "0"]).exception)
    done = CliRunner().invoke(app, ["measure", str(whole), "--held-out", str(text)])
    assert "kept no weights of its training" in str(done.exception)


def test_a_run_on_repeated_tokens_has_mlps_and_smeared_keys_where_asked(tmp_path):
    options = ["--mlp", 12, "--smeared-keys", "--layers", 1, *SHAPE, *HOW]
    done = circuits("--out", tmp_path, "--repeated-tokens", *options)
    assert done.exit_code == 0, done.exception
    cfg = load(tmp_path).cfg
    assert cfg.d_mlp == 12 and cfg.smeared_keys and cfg.n_layers == 1
    assert not (tmp_path / "tokenizer.json").exists()


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, text, whole):
    for options, words in [
        (["--data", text, "--repeated-tokens"], "give one of --data, --dataset"),
        (["--repeats", 0.1], "give one of --data, --dataset"),
        (["--data", text, "--recipe", whole, "--lr", 1], r"leave out ['lr']"),
        (["--data", text, "--recipe", "nothing"], "no model 'nothing'"),
        (["--data", tmp_path / "nowhere.txt"], "nowhere.txt does not exist"),
    ]:
        done = circuits("--out", tmp_path / "out", *options)
        assert done.exit_code and words in f"{done.exception} {done.output} {done.stderr}"
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    done = circuits("--out", whole, "--data", text)
    assert "already holds a model" in str(done.exception)


def test_the_record_to_compare_with_is_the_first_losses_where_there_are_any(whole):
    losses = runs._recorded_losses(whole, count=4)
    assert losses.dtype == np.float32 and len(losses) == 4
    assert len(runs._recorded_losses(folder_of("repeats-2l"))) == 0


def test_a_run_is_given_again_by_the_file_in_its_folder(tmp_path, whole):
    out, file = tmp_path / "again", whole / "run.toml"
    for more in (["--until", 3], []):
        done = circuits(file, "--out", out, *more)
        assert done.exit_code == 0, done.exception or done.output
        file = out / "run.toml"
    assert "resuming from step 3" in done.output and "nan" not in done.output
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert log(out) == log(whole)
