"""The report: every figure stands in it, drawn or failed, whoever drew it; its page is sound."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from typer.testing import CliRunner

from analyses import figures, report
from analyses.cli.main import app
from analyses.papers.figures import Drawing, Verdict
from analyses.papers.report import folder, workers
from analyses.papers.report.words import paper_and_here
from circuits import load, save
from tests.conftest import tiny

ROOT = Path(__file__).parent.parent.parent
QUICK = ["framework/copying", "framework/eigenvalues", "framework/skip-trigrams"]
NO_TOKENIZER = "ValueError: skip-trigrams are words: the model has no tokenizer"
NASTY = "<script>alert('&')</script>"


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """The folder of a tiny model without a tokenizer: it cannot draw tables of words."""
    return saved(tiny(n_ctx=64).float(), tmp_path_factory)


def saved(model, tmp_path_factory):
    at = tmp_path_factory.mktemp("models") / "<model>"
    save(model, at)
    return str(at)


def drawn_by_hand(says="paper: much; here, little", **fields):
    def figure(model):
        picture, _ = plt.subplots(figsize=(9, 3))
        where = "Framework, a place, https://example.org/"
        return Drawing(picture, f"Title {NASTY}", where, f"Caption {NASTY}",
                       Verdict(False, says), **fields)  # fmt: skip

    return figure


def results(out):
    return json.loads((out / "results.json").read_text())


def contents(out):
    """Every file of a report, less the seconds that it took."""
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    plain = results(out)
    for figure in plain["figures"].values():
        del figure["seconds"]
    return found | {"results.json": json.dumps(plain).encode()}


def test_a_report_is_whole_and_names_failures(tmp_path, silent):
    out, seen = tmp_path / "report", []
    entries = report.write(out, QUICK, silent, done=seen.append)
    assert [entry.error for entry in entries] == ["", "", NO_TOKENIZER]
    assert seen == entries and [entry.name for entry in entries] == QUICK
    found = results(out)
    assert set(found["files"]) == {path.name for path in out.iterdir()}
    assert all((out / file).stat().st_size > 500 for file in found["files"])
    copying, words = (found["figures"][QUICK[i]] for i in (0, 2))
    assert copying["holds"] is False and copying["model"] == silent and copying["error"] is None
    assert copying["paper"] == "10 of 12 heads of the one-layer model copy significantly"
    assert copying["here"].startswith("0 of 3 in layer 0") and copying["seconds"] > 0
    assert words["holds"] is None and words["error"] == NO_TOKENIZER
    assert found["torch"] and found["circuits"]
    report.write(out, QUICK[:1], silent)  # replaces the old report
    assert not (out / "framework-eigenvalues.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_processes_draw_the_same_report_as_one_alone(tmp_path, silent):
    done = []
    alone = report.write(tmp_path / "alone", QUICK, silent)
    shared = report.write(tmp_path / "shared", QUICK, silent, 3, done.append)
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
    assert [entry.name for entry in shared] == [entry.name for entry in alone] == QUICK
    assert sorted(entry.name for entry in done) == sorted(QUICK)
    assert not multiprocessing.active_children()


def dies(pipe, where):
    """In place of `workers.work`: a process that is killed over one figure."""
    with suppress(EOFError):
        while True:
            task = pipe.recv()
            if task[0] == QUICK[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            pipe.send(report.Entry(*task, error="alive"))


def test_a_process_that_dies_fails_its_figure_and_the_others_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "work", dies)
    entries = report.write(tmp_path / "report", QUICK, "none", 2)
    assert [entry.error for entry in entries] == ["its process died with code -9", "alive", "alive"]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_report_leaves_the_old_one_and_nothing_else(tmp_path, silent, jobs):
    out = tmp_path / "report"
    report.write(out, QUICK[:1], silent)
    before = contents(out)

    def interrupt(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.write(out, QUICK, silent, jobs, interrupt)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_command_that_is_ended(tmp_path, silent, number):
    command = [sys.executable, "-m", "analyses.cli", "reproduce", "--model", silent, "--jobs", "2"]
    ended = subprocess.Popen(
        [*command, "--out", tmp_path / "report"], cwd=ROOT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert ended.stdout is not None
    with ended.stdout:
        assert ended.stdout.readline()  # a figure is drawn, others are at work
        (os.killpg if number == signal.SIGINT else os.kill)(ended.pid, number)
        assert ended.wait(60) in (130, 143, -signal.SIGKILL)
    assert gone(ended.pid)
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def gone(group, seconds=30):
    """Whether the last process of a group ends in time."""
    for _ in range(10 * seconds):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_each_figure_is_drawn_from_its_usual_model_loaded_once(tmp_path, silent, monkeypatch):
    loaded = []
    usual = dict.fromkeys(QUICK, silent) | {"framework/eigenvalues": "nowhere"}
    monkeypatch.setattr(folder, "usual_model", usual.get)
    monkeypatch.setattr(workers, "load", lambda name: loaded.append(name) or load(name))
    entries = report.write(tmp_path / "usual", QUICK)
    assert [entry.model for entry in entries] == [silent, "nowhere", silent]
    assert loaded == [silent, "nowhere"]
    assert "KeyError: no model 'nowhere'" in entries[1].error and not entries[0].error
    entries = report.write(tmp_path / "asked", QUICK, silent)
    assert {entry.model for entry in entries} == {silent}
    assert {figures.usual_model(name) for name in figures.FIGURES} >= {"attn-only-2l"}


def test_a_folder_with_a_file_of_somebody_else_is_never_replaced(tmp_path, silent):
    out = tmp_path / "report"
    report.write(out, QUICK[:1], silent)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no report \(notes.txt\)"):
        report.write(out, QUICK[:1], silent)
    assert (out / "notes.txt").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="no report"):
        report.write(tmp_path / "file", QUICK[:1], silent)


def test_pages_lie_beside_the_report_and_never_over_each_other(tmp_path, silent, monkeypatch):
    made = {
        "a": {"a.html": "<p>a</p>"},
        "same": {"a.html": "<p>a</p>"},
        "other": {"a.html": "<p>other</p>"},
        "out": {"../a.html": ""},
        "index": {"index.html": ""},
    }
    for name, pages in made.items():
        monkeypatch.setitem(figures.FIGURES, f"framework/{name}", drawn_by_hand(pages=pages))
    names = [f"framework/{name}" for name in made]
    monkeypatch.setattr(folder, "known", lambda name: name)
    entries = report.write(tmp_path / "report", names, silent)
    assert [bool(entry.error) for entry in entries] == [False, False, True, True, True]
    assert "another figure brings pages named ['a.html']" in entries[2].error
    assert (tmp_path / "report/a.html").read_text() == "<p>a</p>"
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


def test_a_verdict_falls_into_what_the_paper_says_and_what_is_here():
    assert paper_and_here("paper: 2 of 12; here 3 of 8; so") == ("2 of 12", "3 of 8; so")
    assert paper_and_here("paper: a; here, of b, c") == ("a", "of b, c")
    assert paper_and_here("nothing of the kind") == ("", "nothing of the kind")


def reproduce(*arguments):
    return CliRunner().invoke(app, ["reproduce", *(str(argument) for argument in arguments)])


def test_reproduce_fails_when_a_figure_fails_and_draws_the_others(tmp_path, silent):
    only = [part for name in QUICK for part in ("--only", name)]
    done = reproduce("framework", *only, "--model", silent, "--out", tmp_path / "out")
    assert done.exit_code == 1 and "no tokenizer" in done.output, done.output
    assert "framework/copying  does not hold" in done.output
    assert (tmp_path / "out/framework-copying.png").exists()
    done = reproduce("--only", QUICK[0], "--model", silent, "--out", tmp_path / "out")
    assert done.exit_code == 0 and list(results(tmp_path / "out")["figures"]) == QUICK[:1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "framework/cornr"), "did you mean 'framework/corner'?"),
        (("--only", "corner"), "did you mean 'framework/corner'?"),
        (("induction", "--only", "framework/corner"), "no figure 'framework/corner': there are"),
        (("framwork",), "no paper 'framwork'; there are ['framework', 'induction', 'circuits']"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(tmp_path, arguments, said):
    done = reproduce(*arguments, "--out", tmp_path / "out")
    assert said in str(done.exception) and list(tmp_path.iterdir()) == []
