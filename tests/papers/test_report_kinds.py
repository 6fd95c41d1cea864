"""Reports of figures of one model, of histories, and of models that a figure trains itself; and the
page that says what held."""

import pytest
from typer.testing import CliRunner

from analyses import figures, report
from analyses.cli.main import app
from analyses.papers.figures import Verdict
from analyses.papers.report import Entry, arguments, folder
from tests.conftest import tiny
from tests.papers.test_report import NASTY, drawn_by_hand, results, saved
from tests.plots.test_tables import parsed

HISTORY, TOY, PLAIN = "induction/depth", "induction/by-hand", "framework/copying"


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """The folder of a model without a history."""
    return saved(tiny(n_ctx=64).float(), tmp_path_factory)


@pytest.fixture
def toy(monkeypatch):
    """A figure that takes no model."""
    monkeypatch.setitem(figures.TOYS, TOY, lambda: drawn_by_hand()(None))
    monkeypatch.setattr(folder, "known", lambda name: name)


def test_figures_of_all_kinds_are_drawn_each_from_its_own(tmp_path, toy):
    entries = report.write(tmp_path / "report", [PLAIN, HISTORY, TOY])
    assert [entry.error or entry.left_out for entry in entries] == [""] * 3
    assert [len(entry.models) for entry in entries] == [1, 4, 0]
    text = (tmp_path / "report/index.html").read_text()
    assert "a model of its own" in text and "<code>attn-only-1l-smeared</code>" in text
    assert f"circuits draw {HISTORY}</code>" in text  # no model was asked for
    assert f"circuits draw {PLAIN} --model attn-only-1l</code>" in text
    found = results(tmp_path / "report")
    assert found["figures"][HISTORY]["model"].count(", ") == 3
    assert found["figures"][TOY]["model"] is None
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
    assert "and two are left out" in text and text.count("– left out") == 4
    assert results(tmp_path / "report")["figures"][HISTORY]["left_out"] == entries[1].left_out
    arguments_ = ["reproduce", "--only", HISTORY, "--model", silent, "--out", str(tmp_path / "b")]
    done = CliRunner().invoke(app, arguments_)
    assert done.exit_code == 0 and f"{HISTORY}  left out" in done.output


def test_the_command_line_knows_every_kind(tmp_path, monkeypatch):
    monkeypatch.setitem(figures.TOYS, TOY, lambda: drawn_by_hand()(None))
    listed = CliRunner().invoke(app, ["list"]).output
    assert all(f"  {name} " in listed for name in figures.every())
    file = tmp_path / "a.svg"
    done = CliRunner().invoke(app, ["draw", HISTORY, "--out", str(file)])
    assert done.exit_code == 0 and "drawn from attn-only-2l, attn-only-2l-seed1" in done.output
    assert file.read_text().startswith("<?xml")


def entry(name: str, holds: bool | None, says: str = "paper: a; here b") -> Entry:
    return Entry(name, "", f"Title of {name}", verdict=None if holds is None else
                 Verdict(holds, says), error="" if holds is not None else "it broke")  # fmt: skip


def test_an_argument_holds_only_if_all_its_figures_do():
    yes, no, broken = (entry("induction/depth", holds) for holds in (True, False, None))
    first = arguments.ARGUMENTS[0]
    assert arguments.verdict(first, []) == arguments.verdict(first, [broken]) == "not tested"
    assert arguments.verdict(first, [yes, yes]) == "held"
    assert arguments.verdict(first, [no]) == "did not hold"
    assert arguments.verdict(first, [yes, no]) == "held in part: one of two"
    fourth, needed = arguments.ARGUMENTS[3], entry("induction/pattern-matching", True)
    assert arguments.verdict(fourth, [yes]) == "not tested"
    assert arguments.verdict(fourth, [yes, needed]) == "held in a model trained to do so"


def test_the_six_arguments_are_told_from_the_verdicts_and_what_is_missing_is_said():
    found = [entry("induction/phase-change", True, f"paper: a; here {NASTY}"),
             entry("induction/smeared-keys", False)]  # fmt: skip
    page = arguments.statement(found)
    words = " ".join(parsed(page).words)
    assert "Argument 1: they come at the same time: held" in words and NASTY in words
    assert "Argument 2: what moves one moves the other: did not hold" in words
    assert "Argument 6: small models tell of large ones: not tested" in words
    assert "Eight more: not in this report." in words and "<script" not in page
    assert words.count("Controls") == words.count("Not tested ") == 6 and "O14" in words


def test_every_figure_that_an_argument_names_can_be_drawn():
    named = {name for one in arguments.ARGUMENTS for name in arguments.evidence(one)}
    assert named <= set(figures.every())
