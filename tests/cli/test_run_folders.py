"""What a training run does to its folder: it takes away its own files, refuses those of others, and
ends with a history of what can be read, whatever became of the rest."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from analyses import dynamics, recording
from analyses.cli import main as cli
from analyses.cli.corpus import Corpus
from analyses.cli.run_folder import FINISHED, INNER, TOKENS, enter, read_record
from circuits import GPT, GPTConfig, load, save
from circuits.data import train_tokenizer
from circuits.files import LOCK, alone
from circuits.training import Snapshots
from tests.conftest import TINY, tiny


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


def test_a_tokenizer_that_was_not_asked_for_is_not_taken(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n<|endoftext|>\nthe dog sat on the cat and the mat")
    corpus, file = Corpus(data=[text], held_out=[text]), tmp_path / "tokenizer.json"
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 262}), train_tokenizer(["a b"], 257)), tmp_path)
    assert corpus.vocabulary(file, 260).size == 260  # one that lies there
    assert corpus.vocabulary(file, 300, resumed=True).size == 260
    with pytest.raises(ValueError, match="has 260 tokens, and 258 are asked for"):
        corpus.vocabulary(file, 258, resumed=True)
    other = tmp_path / "other.json"
    other.write_text(train_tokenizer(["a b"], 257).tokenizer.to_str())
    with pytest.raises(ValueError, match="began with the tokenizer in"):
        corpus.vocabulary(file, 260, other, resumed=True)
    assert corpus.vocabulary(file, 260, other).size == 257
    with pytest.raises(ValueError, match=r"257 tokens or more, .* got 256"):
        corpus.vocabulary(file, 256)


STEPS = range(0, 50, 10)


def step(number, tokens=6):
    """A step as `record` writes it, of one head."""
    rng, head = np.random.default_rng(number), {"prefix_matching", "copying", "previous_token",
                                                "qk_trace"}  # fmt: skip
    ablated = ("ablated_loss", "ablated_in_context")
    return {
        "tokens": np.array(100 * number),
        "step_loss": np.arange(max(0, number - 10), number, dtype=np.float32),
        "held_out": np.float32(3),
        "loss_by_index": rng.random(8, dtype=np.float32),
        "token_loss": rng.random(tokens).astype(np.float16),
        **{name: rng.random((1, 1)).astype(np.float16) for name in sorted(head)},
        **{name: rng.random((1, 1, 2)).astype(np.float16) for name in ablated},
        "ablated_token_loss": rng.random((1, 1, 2, tokens)).astype(np.float16),
    }


def harmed(folder, harm):
    file = folder / "history" / "step-00000020.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    if harm == "stray":
        filled(folder, "history/step-foo.npz")
    elif harm == "missing":
        file.unlink()
    elif harm == "other rows":
        np.savez(file, **step(20, tokens=5))
    elif harm == "pickled":
        np.savez(file, **{**step(20), "held_out": np.array([{}], dtype=object)})
    else:
        file.write_bytes(
            {"empty": b"", "cut": bytes(content[:-99]), "flipped": bytes(content)}[harm]
        )


HARMS = ["empty", "cut", "flipped", "pickled", "stray", "missing", "other rows"]


@pytest.fixture
def history(tmp_path):
    (tmp_path / "history").mkdir()
    for number in STEPS:
        np.savez_compressed(tmp_path / f"history/step-{number:08d}.npz", **step(number))
    return tmp_path


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.filterwarnings("ignore:.*left out of the history")
def test_a_step_that_cannot_be_read_is_left_out_and_moves_no_other(history, harm):
    harmed(history, harm)
    seen = dynamics.history(history)
    there = [number for number in STEPS if harm == "stray" or number != 20]
    assert seen.step.values.tolist() == there
    known = [number for number in range(40) if 20 in there or not 10 <= number < 20]
    assert np.flatnonzero(seen.step_loss.notnull()).tolist() == known
    assert (seen.step_loss.values[known] == known).all()
    recording.collect(history / "history", history, [float(i) for i in range(40)])
    assert (dynamics.history(history).step_loss == np.arange(40)).all()


@pytest.mark.parametrize(("harm", "named"), [
    ("empty", "step-00000020.npz is left out.*EOFError"), ("stray", "step-foo.npz is left out"),
    ("other rows", "step 20 is left out of the history: it was measured otherwise")])  # fmt: skip
def test_what_is_left_out_is_named(history, harm, named):
    harmed(history, harm)
    with pytest.warns(UserWarning, match=named):
        recording.stack_steps(history / "history")


def test_a_damaged_history_is_an_error_with_its_file(history):
    recording.collect(history / "history", history)
    whole, arrays = (history / "history.npz").read_bytes(), recording.arrays_of(
        history / "history.npz"
    )  # fmt: skip
    for content in (b"", whole[:-50], b"garbled", whole[: len(whole) // 2]):
        (history / "history.npz").write_bytes(content)
        with pytest.raises(ValueError, match=r"history\.npz cannot be read"):
            dynamics.history(history)
    for name, value in [("copying", arrays["copying"][1:]), ("step", arrays["tokens"][1:])]:
        np.savez(history / "history.npz", **{**arrays, name: value})
        with pytest.raises(ValueError, match=r"history\.npz is not a whole history"):
            dynamics.history(history)
    arrays.pop("tokens")
    np.savez(history / "history.npz", **arrays)
    with pytest.raises(ValueError, match=r"history\.npz is not a whole history"):
        dynamics.history(history)


def test_save_writes_nothing_that_load_would_refuse_and_keeps_the_good_model(tmp_path):
    good, loud = tiny(dtype=torch.float32), tiny(dtype=torch.float32)
    save(good, tmp_path)
    with torch.no_grad():
        loud.W_E[0, 0] = 1e6
    words = train_tokenizer(["the cat sat on the mat"], 265)
    loose = tiny()
    loose.tokenizer = words
    for model, dtype, message in [(loud, torch.float16, "W_E .* holds a number that is not finite"),
                                  (good, torch.int32, "wanted plain floating-point numbers"),
                                  (loose, torch.float32, "265 tokens, .* d_vocab=29")]:  # fmt: skip
        with pytest.raises(ValueError, match=f"nothing was saved .*{message}"):
            save(model, tmp_path, overwrite=True, dtype=dtype)
        assert load(tmp_path).W_E.equal(good.W_E)
    with pytest.raises(ValueError, match=r"265 tokens, .* d_vocab=29"):
        GPT(GPTConfig(**TINY), words)


def test_a_tokenizer_goes_with_its_model_and_is_a_regular_file(tmp_path):
    words = train_tokenizer(["the cat sat on the mat"], 265)
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 265}), words), tmp_path)
    (tmp_path / "tokenizer.json").rename(tmp_path / "kept.json")
    save(tiny(), tmp_path, overwrite=True)
    assert load(tmp_path).tokenizer is None
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 265}), words), tmp_path, overwrite=True)
    save(tiny(), tmp_path, overwrite=True)
    assert not (tmp_path / "tokenizer.json").exists()
    (tmp_path / "kept.json").rename(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"265 tokens, .* d_vocab=29"):
        load(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer.json").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="no regular file"):
        load(tmp_path)


def test_snapshots_take_their_folder_as_text_and_leave_what_is_no_snapshot(tmp_path):
    filled(tmp_path, "step-foo.safetensors")
    kept = Snapshots(folder=str(tmp_path))
    for number in range(4):
        kept.write({}, recording.Progress(step=number), {})
    assert len(kept.files()) == 2 and (tmp_path / "step-foo.safetensors").read_text() == "mine"
    assert all(INNER["snapshots"].fullmatch(file.name) for file in kept.files())


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
        ("recipe.json", b"[1]", "recipe.json: a recipe is fields by name, got list"),
        ("run.json", b"[1]", "run.json holds list, wanted fields by name"),
        ("run.json", b"", "run.json cannot be read"),
    ]:
        (tmp_path / file).write_bytes(content)
        assert said in asked(monkeypatch, capsys, *options)[1]
    for device in ("foo", "meta", "cuda:99"):
        options = ["train", "--repeated-tokens", "--out", tmp_path / "out", "--device", device]
        code, said = asked(monkeypatch, capsys, *options)
        assert code == 2 and f"no device '{device}' can be used here" in said
    assert not (tmp_path / "out").exists()


def test_a_model_in_a_folder_with_markup_in_its_name_has_its_heads_listed(tmp_path):
    save(tiny(dtype=torch.float32), tmp_path / "x[/nope]")
    done = CliRunner().invoke(cli.app, ["heads", str(tmp_path / "x[/nope]")])
    assert done.exit_code == 0, done.exception
    assert "[/nope]" in "".join(done.output.split())


@pytest.mark.parametrize("name", ["", "picture", "picture.pngg"])
def test_a_drawing_wants_a_name_of_a_picture(tmp_path, monkeypatch, capsys, name):
    words = ["draw", "framework/corner", "--out", tmp_path / name]
    code, said = asked(monkeypatch, capsys, *words)
    assert code == 2 and "is no name of a picture" in said and not list(tmp_path.iterdir())


def test_a_report_replaces_no_folder_that_bears_the_name_of_one_of_its_files(tmp_path):
    from analyses.papers.report.folder import write

    filled(tmp_path, "old/mine.txt")
    (tmp_path / "results.json").write_text('{"files": ["old", "results.json"]}')
    with pytest.raises(ValueError, match=r"holds files that are no report \(old\)"):
        write(tmp_path, ["framework/corner"])
