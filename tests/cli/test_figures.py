"""`circuits reproduce`, `draw` and `list`: verdicts in words, and names that do not exist."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from analyses import figures
from analyses.cli import main
from analyses.cli.main import app
from analyses.papers.figures.record import Finding
from circuits import save
from tests.papers.report.by_hand import QUICK, results


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
    assert all(f"  {name} " in listed for name in figures.every())
    table = cli("heads", tmp_path / "model").output
    assert "L1H3" in table and "previous" in table


def test_a_figure_of_histories_names_its_models(tmp_path):
    done = cli("draw", "induction/depth", "--out", tmp_path / "a.svg")
    assert done.exit_code == 0 and "drawn from attn-only-2l, attn-only-2l-seed1" in done.output
    assert "not testable here: paper: in attention-only models" in done.output
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_a_toy_is_trained_and_judged_from_as_many_seeds_as_are_asked_for(tmp_path, monkeypatch):
    def find(seed: int) -> Finding:
        return Finding(seed < 2, f"seen {seed}", "caption", None)

    toy = replace(figures.EVERY["induction/triggers"], find=find)
    monkeypatch.setitem(figures.EVERY, toy.name, toy)
    for seeds, state, words in (
        (1, "holds", "here: seen 0"),
        (2, "holds", "in seed 1: seen 1"),
        (3, "does not hold", "in seed 2: seen 2"),
    ):
        done = cli("draw", toy.name, "--seeds", seeds, "--out", tmp_path / "a.svg")
        assert f"{state}: paper" in done.output and words in done.output
    for name, seeds in ((toy.name, 0), ("framework/copying", 2)):
        done = cli("draw", name, "--seeds", seeds)
        assert f"got {seeds} for {name}" in str(done.exception)


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


def filled(out, *names):
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    return out


def asked(monkeypatch, capsys, *words):
    """Exit status and what the command line says on standard error."""
    monkeypatch.setattr("sys.argv", ["circuits", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        main.main()
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "picture", "picture.pngg"])
def test_a_drawing_wants_a_name_of_a_picture(tmp_path, monkeypatch, capsys, name):
    words = ["draw", "framework/corner", "--out", tmp_path / name]
    code, said = asked(monkeypatch, capsys, *words)
    assert code == 2 and "is no name of a picture" in said and not list(tmp_path.iterdir())


def test_a_report_replaces_no_folder_that_bears_the_name_of_one_of_its_files(tmp_path):
    from analyses.papers.report.folder import write

    filled(tmp_path, "old/mine.txt")
    (tmp_path / "results.json").write_text('{"files": ["old", "results.json"]}')
    with pytest.raises(ValueError, match=r"holds files that no report wrote \(old\)"):
        write(tmp_path, ["framework/corner"])
