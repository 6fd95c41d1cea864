"""Pictures and reports on disk."""

import pytest

from analyses.cli import main as cli


def filled(out, *names):
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    return out


def asked(monkeypatch, capsys, *words):
    """Exit status and what the command line says on standard error."""
    monkeypatch.setattr("sys.argv", ["circuits", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
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
    with pytest.raises(ValueError, match=r"holds files that are no report \(old\)"):
        write(tmp_path, ["framework/corner"])
