"""What a training run does to its folder: it takes away its own files, refuses those of others, and
ends with a history of what can be read, whatever became of the rest."""

import json

import pytest

from analyses.cli import main as cli
from analyses.cli.run_folder import FINISHED, TOKENS, enter, read_record
from circuits import save
from circuits.files import LOCK, alone
from tests.conftest import tiny


def filled(out, *names):
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    return out


def everything(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())


MINE = ("history/mine.txt", "tokens/mine.bin", "snapshots/mine.txt", "weights/mine", "notes.txt",
        "history/step-1.npz", "snapshots/step-foo.safetensors", f"{TOKENS}/mine")  # fmt: skip
OURS = ("history/step-00000001.npz", "snapshots/step-00000001.safetensors",
        f"{TOKENS}/ab12/index.json", f"{TOKENS}/ab12/tokens-00000.bin")  # fmt: skip


def test_a_run_takes_its_own_files_away_and_no_other(tmp_path):
    filled(tmp_path, *MINE)
    with enter(tmp_path) as folder:
        folder.begin({"examples": 8}, ["examples"])
        filled(tmp_path, *OURS, "snapshots/weights-00000001.safetensors")
        folder.finish()
    kept = ("run.json", "weights/weights-00000001.safetensors")
    assert everything(tmp_path) == sorted([*MINE, *kept])


@pytest.mark.parametrize("name", ["run.json", "log.jsonl", "tokenizer.json",
                                  "history/step-00000007.npz", "config.json"])  # fmt: skip
def test_a_folder_with_a_file_that_a_run_would_write_over_is_refused(tmp_path, name):
    filled(tmp_path, name, *MINE)
    with pytest.raises(ValueError, match="choose another folder"), enter(tmp_path):
        raise AssertionError
    assert everything(tmp_path) == sorted([name, *MINE])


def test_a_start_that_fails_leaves_nothing_and_one_that_was_killed_is_gone_on_with(tmp_path):
    with pytest.raises(ZeroDivisionError), enter(tmp_path) as folder:
        folder.begin({}, [])
        filled(tmp_path, "tokenizer.json")
        raise ZeroDivisionError
    assert everything(tmp_path) == []
    with alone(tmp_path) as here:  # as if killed
        here.note("begun")
        filled(tmp_path, "tokenizer.json", "run.json", OURS[0])
    with enter(tmp_path) as folder:
        assert not folder.has_snapshot() and not folder.finished
        folder.begin({"vocab": 3}, ["vocab"])
        assert read_record(tmp_path) == {"vocab": 3} and not (tmp_path / OURS[0]).exists()
        with pytest.raises(ValueError, match="another process is at work"), enter(tmp_path):
            raise AssertionError


def test_a_run_killed_while_it_tidies_up_is_finished(tmp_path):
    filled(tmp_path, "config.json", *OURS)
    with alone(tmp_path) as here:
        here.note(FINISHED)
    with enter(tmp_path) as folder:
        assert folder.finished
    assert everything(tmp_path) == ["config.json"] and not (tmp_path / LOCK).exists()


def test_what_a_run_is_measured_on_may_not_change_and_a_damaged_record_of_it_is_said(tmp_path):
    with enter(tmp_path) as folder:
        folder.begin({"examples": 8}, ["examples"])
        filled(tmp_path, OURS[1])
        with pytest.raises(ValueError, match="examples was 8 and is 9 now"):
            folder.begin({"examples": 9}, ["examples"])
        folder.begin({"examples": 8}, ["examples"])
        for text in ("[1]", "{", "\xff"):
            (tmp_path / "run.json").write_text(text, encoding="latin-1")
            with pytest.raises(ValueError, match=r"run\.json"):
                read_record(tmp_path)
            with pytest.warns(UserWarning, match="it is written anew"):
                folder.begin({"examples": 8}, ["examples"])
            assert json.loads((tmp_path / "run.json").read_text()) == {"examples": 8}


def asked(monkeypatch, capsys, *words):
    """Exit status and what the command line says on standard error."""
    monkeypatch.setattr("sys.argv", ["circuits", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr().err


def test_damaged_files_of_a_recorded_run_and_devices_are_named(tmp_path, monkeypatch, capsys):
    save(tiny(), tmp_path)
    options = ["train", "--repeated-tokens", "--out", tmp_path / "out", "--recipe", tmp_path]
    for file, content, said in [
        ("recipe.json", b"\xff", "recipe.json is no text in UTF-8"),
        ("recipe.json", b"[1]", "recipe.json: a recipe must be fields by name, got list"),
        ("run.json", b"[1]", "run.json holds list, expected fields by name"),
        ("run.json", b"", "run.json cannot be read"),
    ]:
        (tmp_path / file).write_bytes(content)
        assert said in asked(monkeypatch, capsys, *options)[1]
    for device in ("foo", "meta", "cuda:99"):
        options = ["train", "--repeated-tokens", "--out", tmp_path / "out", "--device", device]
        code, said = asked(monkeypatch, capsys, *options)
        assert code == 2 and f"no device '{device}' can be used here" in said
    assert not (tmp_path / "out").exists()
