"""The folder of a report has every figure, drawn, failed or left out, and replaces nothing else."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from analyses import figures, report
from analyses.cli.main import app
from analyses.papers.figures import record as records
from analyses.papers.report import arguments, folder, workers
from circuits import load
from tests.papers.report.by_hand import NO_TOKENIZER, QUICK, record, results

HISTORY, TOY, PLAIN = "induction/depth", "induction/by-hand", "framework/copying"


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
    assert (copying["state"], copying["identity"]) == ("does not hold", False)
    assert words["holds"] is None and words["error"] == NO_TOKENIZER and words["state"] == "failed"
    assert found["torch"] and found["circuits"]
    report.write(out, QUICK[:1], silent)  # replaces the old report
    assert not (out / "framework-eigenvalues.png").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_each_figure_is_drawn_from_its_usual_model_loaded_once(tmp_path, silent, monkeypatch):
    loaded = []
    usual = dict.fromkeys(QUICK, silent) | {"framework/eigenvalues": "nowhere"}
    for name, model in usual.items():
        monkeypatch.setitem(figures.EVERY, name, replace(figures.EVERY[name], models=(model,)))
    monkeypatch.setattr(workers, "load", lambda name: loaded.append(name) or load(name))
    monkeypatch.setattr(records, "text_models", lambda fits: ())
    entries = report.write(tmp_path / "usual", QUICK)
    assert [entry.models for entry in entries] == [(silent,), ("nowhere",), (silent,)]
    assert not any(entry.model for entry in entries) and loaded == [silent, "nowhere"]
    assert "KeyError: no model 'nowhere'" in entries[1].error and not entries[0].error
    entries = report.write(tmp_path / "asked", QUICK, silent)
    assert {entry.model for entry in entries} == {silent}


def test_a_folder_with_a_file_of_somebody_else_is_never_replaced(tmp_path, silent):
    out = tmp_path / "report"
    report.write(out, QUICK[:1], silent)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"no report wrote \(notes.txt\)"):
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
        found = record(f"framework/{name}", pages=pages)
        monkeypatch.setitem(figures.EVERY, found.name, found)
    names = [f"framework/{name}" for name in made]
    monkeypatch.setattr(folder, "known", lambda name: name)
    entries = report.write(tmp_path / "report", names, silent)
    assert [bool(entry.error) for entry in entries] == [False, False, True, True, True]
    assert "another figure brings pages named ['a.html']" in entries[2].error
    assert (tmp_path / "report/a.html").read_text() == "<p>a</p>"
    assert {path.name for path in tmp_path.iterdir()} == {"report"}


def test_a_figure_that_no_model_can_show_stands_there_in_words(tmp_path, silent, monkeypatch):
    nothing = record("framework/nothing", here="no model has <b>", shows=False)
    monkeypatch.setitem(figures.EVERY, nothing.name, nothing)
    monkeypatch.setattr(folder, "known", lambda name: name)
    (entry,) = report.write(tmp_path / "report", [nothing.name], silent)
    assert entry.state == "not testable here" and not entry.error and not entry.files
    text = (tmp_path / "report/index.html").read_text()
    assert "Not testable here: no model has &lt;b&gt;." in text
    assert "<img" not in text and "PNG" not in text


@pytest.fixture
def toy(monkeypatch):
    """A figure that takes no model."""
    monkeypatch.setitem(figures.EVERY, TOY, record(TOY, kind="toy", models=()))
    monkeypatch.setattr(folder, "known", lambda name: name)


def test_figures_of_all_kinds_are_drawn_each_from_its_own(tmp_path, toy):
    entries = report.write(tmp_path / "report", [PLAIN, HISTORY, TOY])
    assert [entry.error or entry.left_out for entry in entries] == [""] * 3
    assert [len(entry.models) for entry in entries] == [1, 4, 0]
    text = (tmp_path / "report/index.html").read_text()
    assert "a model of its own" in text and "<code>attn-only-1l-smeared</code>" in text
    assert f"circuits draw {HISTORY}</code>" in text  # no model was asked for
    assert f"circuits draw {PLAIN}</code>" in text
    found = results(tmp_path / "report")
    assert found["figures"][HISTORY]["model"].count(", ") == 3
    assert found["figures"][TOY]["model"] is None
    plain = found["figures"][PLAIN]
    assert plain["judged"] == "attn-only-1l" and plain["same_as"] == "framework/eigenvalues"
    assert {arguments.FILE, "induction-depth.svg"} <= set(found["files"])
    assert f'href="{arguments.FILE}"' in text and (tmp_path / "report" / arguments.FILE).is_file()


def test_what_cannot_be_of_a_model_is_left_out_in_words_and_nothing_has_failed(
    tmp_path, silent, toy
):
    entries = report.write(tmp_path / "report", [PLAIN, HISTORY, TOY], silent)
    assert [bool(entry.left_out) for entry in entries] == [False, True, True]
    assert "has no history" in entries[1].left_out and not any(entry.error for entry in entries)
    assert "trains a model of its own" in entries[2].left_out
    text = (tmp_path / "report/index.html").read_text()
    assert "and 2 are left out" in text and text.count("– left out") == 4
    assert results(tmp_path / "report")["figures"][HISTORY]["left_out"] == entries[1].left_out
    arguments_ = ["reproduce", "--only", HISTORY, "--model", silent, "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(app, arguments_)
    assert done.exit_code == 0 and f"{HISTORY}  left out" in done.output
