"""The README's code runs as it stands."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from tests.test_structure import FLOORS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def run(example: str) -> dict:
    names: dict = {}
    with torch.set_grad_enabled(True):  # which the example may switch off
        exec(example, names)
    return names


def test_the_first_example_runs_and_finds_an_induction_head():
    names = run(blocks("python")[0])
    assert "induction" in names["attention"].taxonomy(names["model"]).role.values


def test_the_second_example_runs_and_its_numbers_are_these():
    names = run(blocks("python")[1])
    parts, model = names["parts"], names["model"]
    assert model.to_str_tokens(names["tokens"][0])[-2:] == [" H", "art"]
    assert (
        round(parts["L1H1"][0, -1].item(), 1) == 6.6 and round(parts.whole[0, -1].item(), 1) == 9.1
    )
    assert parts.remainder.abs().max() < 1e-4
    split = names["scores"].by_token(model, names["cache"], "L1H1", dest=23, src=5)[0]
    assert divmod(int(split.argmax()), 24) == (23, 4)  # "art" seeks what follows the first "art"


def test_the_third_example_goes_on_from_there_and_a_circuit_of_it_does_the_task():
    names = run("".join(blocks("python")[1:3]))
    lost = names["lost"].isel(example=0)
    rise = (lost - lost.base).to_pandas()
    assert rise.loc["L0H1", "full"] > rise.loc["L0H1 -> L1H1.K", "full"] > 0.2
    assert abs(rise.loc["L0H1 -> L1H1.K", "pattern-preserving"]) < 1e-5
    discovery, task, kept = names["discovery"], names["task"], names["kept"]
    assert discovery.faithfulness(task, kept) > 0.8 and kept.sum() < 0.7 * task.edges.sum()


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


def test_it_counts_the_figures_there_are():
    from analyses import figures

    counts = (
        f"{len(figures.FIGURES)} of one model, {len(figures.HISTORIES)} of training histories and "
        f"{len(figures.TOYS)} of small models"
    )
    assert counts in " ".join(README.split())


def verdicts() -> dict[str, tuple[int, ...]]:
    """Of each paper, by its name on the command line: figures, verdicts that hold, others."""
    rows = re.findall(r"^\| `(\w+)`: .* \| (\d+) \| (\d+) \| (\d+) \|$", README, re.MULTILINE)
    return {paper: tuple(map(int, counts)) for paper, *counts in rows}


def test_its_table_of_verdicts_has_every_figure_of_every_paper():
    from analyses import figures, report

    there = Counter(name.split("/")[0] for name in figures.every())
    table = verdicts()
    assert table.keys() == report.PAPERS.keys() == there.keys()
    for paper, (drawn, hold, others) in table.items():
        assert drawn == hold + others == there[paper], paper


def test_its_verdicts_are_those_of_the_report_that_its_first_command_made():
    """CI runs that command first; a report of other figures or another model says nothing here."""
    from analyses import figures

    made = ROOT / "report" / "results.json"
    if not made.exists():
        pytest.skip("no report here: circuits reproduce makes it")
    found = json.loads(made.read_text())["figures"]
    usual = {name: ", ".join(figures.drawn_from(name)) or None for name in figures.every()}
    if {name: figure["model"] for name, figure in found.items()} != usual:
        pytest.skip("the report here is not that of circuits reproduce")
    for paper, (_, hold, others) in verdicts().items():
        holds = [figure["holds"] for name, figure in found.items() if name.startswith(f"{paper}/")]
        assert (holds.count(True), holds.count(False)) == (hold, others), paper


def test_its_map_names_every_room_of_the_house():
    rooms = README[README.index("## Rooms") : README.index("## Conventions")]
    circuits, analyses = rooms.split("| `analyses/` | |")
    for package, part in (("circuits", circuits), ("analyses", analyses)):
        named = set(re.findall(r"`(\w+)`", part))
        assert not set(FLOORS[package]) - named, package


def test_its_links_lead_somewhere():
    links = set(re.findall(r"\]\(([^)#]+)\)", README))
    here = {link for link in links if "://" not in link}
    assert here and all((ROOT / link).exists() for link in here)


def test_how_to_cite_it_is_told_alike_in_both_places():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    bibtex = blocks("bibtex")[0]
    for title in (cff["title"], *(paper["title"] for paper in cff["references"])):
        assert f"title={{{title}}}" in bibtex
    for place in (cff["references"][0]["url"], cff["references"][1]["url"], str(cff["version"])):
        assert place in bibtex
    assert f'version = "{cff["version"]}"' in (ROOT / "pyproject.toml").read_text()


def test_the_example_of_the_bridge_runs_and_its_models_agree():
    names = run(next(block for block in blocks("python") if "bridge" in block))
    tokens = torch.tensor([[7, 5, 3, 50256]])
    with torch.no_grad():
        expected = names["theirs"].eval()(tokens).logits
        for model in (names["model"], names["lens"], names["again"]):
            assert torch.allclose(model(tokens), expected, atol=1e-5)


def test_a_script_is_carried_over_and_padded_text_is_read_in_pieces():
    ported, padded = blocks("python")[-2:]
    names = run(ported)
    assert names["cache"]["result", 0].shape == (4, 20, 4, 64)
    names = run(padded)
    assert names["past"].n == names["tokens"].shape[1]
