"""The README's code runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs():
    (example,) = blocks("python")
    names: dict[str, object] = {}
    exec(example, names)
    assert "induction" in names["attention"].taxonomy(names["model"]).role.values


def test_the_first_console_block_holds_the_two_commands():
    commands = [line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ ")]
    assert len(commands) == 2
    assert "circuits reproduce" in commands[0] and "pytest" in commands[1]


def test_every_command_of_the_readme_exists():
    from typer.main import get_command

    from analyses.cli import app

    known = set(get_command(app).commands)
    for block in blocks("console"):
        for name in re.findall(r"^\$ circuits (\w+)", block, re.MULTILINE):
            assert name in known
