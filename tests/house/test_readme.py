"""The README and the guide pages: their code runs as it stands, their words are true."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from tests.house.floors import FLOORS

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.md"))]
README = PAGES[0].read_text()


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> dict[str, dict]:
    """What the code of each page leaves, by the page's name; one run a page, block after block."""
    left: dict[str, dict] = {}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("pages"))
        for page in PAGES:
            left[page.stem] = {}
            with torch.set_grad_enabled(True):  # which a page may switch off
                for block in blocks("python", page.read_text()):
                    exec(block, left[page.stem])
        left["README"]["drawn"] = Path("heads.png").stat().st_size
    return left


def test_the_readmes_code_finds_an_induction_head_and_draws_it(names):
    seen = names["README"]
    assert "induction" in seen["attention"].taxonomy(seen["model"]).role.values
    assert seen["drawn"] > 1000


def test_the_numbers_of_the_page_on_taking_apart_are_these(names):
    seen = names["taking-apart"]
    parts, model = seen["parts"], seen["model"]
    assert model.to_str_tokens(seen["tokens"][0])[-2:] == [" H", "art"]
    assert f"gives {parts['L1H1'][0, -1]:.1f} of the {parts.whole[0, -1]:.1f}" in " ".join(
        (ROOT / "notebooks/taking-apart.md").read_text().split()
    )
    assert parts.remainder.abs().max() < 1e-4
    split = seen["scores"].by_token(model, seen["cache"], "L1H1", dest=23, src=5)[0]
    assert divmod(int(split.argmax()), 24) == (23, 4)  # "art" seeks what follows the first "art"


def test_what_causes_what_shows_a_circuit_that_does_the_task(names):
    seen = names["what-causes-what"]
    lost = seen["lost"].isel(example=0)
    rise = (lost - lost.base).to_pandas()
    assert rise.loc["L0H1", "full"] > rise.loc["L0H1 > L1H1.K", "full"] > 0.2
    assert abs(rise.loc["L0H1 > L1H1.K", "pattern-preserving"]) < 1e-5
    task, kept = seen["task"], seen["kept"]
    assert (
        seen["discovery"].faithfulness(task, kept) > 0.8
        and kept.sum() < 0.7 * seen["discovery"].edges(task.model).sum()
    )


def test_models_that_cross_the_bridge_agree(names):
    seen = names["other-libraries"]
    tokens = torch.tensor([[7, 5, 3, 11]])
    theirs = seen["theirs"].eval()
    with torch.no_grad():
        for model in (seen["lens"], seen["again"]):
            assert torch.allclose(model(tokens), theirs(tokens).logits, atol=1e-5)


def test_a_script_is_carried_over_and_padded_text_is_read_in_pieces(names):
    seen = names["other-libraries"]
    assert seen["cache"]["result", 0].shape == (4, 20, 4, 64)
    assert seen["past"].n == seen["tokens"].shape[1]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


def test_the_first_console_block_holds_the_two_commands():
    commands = [line[2:] for line in blocks("console")[0].splitlines() if line.startswith("$ ")]
    assert len(commands) == 2
    assert "circuits reproduce" in commands[0] and "pytest" in commands[1]


def test_every_command_of_the_pages_exists():
    from typer.main import get_command

    from analyses.cli.main import app

    known = set(get_command(app).commands)
    for page in PAGES:
        for block in blocks("console", page.read_text()):
            for name in re.findall(r"^\$ circuits (\w+)", block, re.MULTILINE):
                assert name in known, page


def test_it_counts_the_figures_there_are():
    from analyses import figures

    n = Counter(record.kind for record in figures.EVERY.values())
    counts = (
        f"{n['model']} of one model, {n['histories']} of training histories and "
        f"{n['toy']} of small models"
    )
    assert counts in " ".join(README.split())


def verdicts() -> dict[str, tuple[int, ...]]:
    """Of each paper, by its name on the command line: figures, those whose claim holds, does not
    hold, cannot be tested here, identities, and figures without a claim of their own."""
    numbers = r" \| ".join([r"(\d+)"] * 6)
    rows = re.findall(rf"^\| `(\w+)`: .* \| {numbers} \|$", README, re.MULTILINE)
    return {paper: tuple(map(int, counts)) for paper, *counts in rows}


def test_its_table_of_verdicts_has_every_figure_of_every_paper():
    from analyses import figures, report

    there = Counter(name.split("/")[0] for name in figures.every())
    table = verdicts()
    assert table.keys() == report.PAPERS.keys() == there.keys()
    for paper, (drawn, *kinds) in table.items():
        assert drawn == sum(kinds) == there[paper], paper


def test_its_verdicts_are_those_of_the_report_that_its_first_command_made():
    """CI runs that command first; a report of other figures or another model says nothing here."""
    from analyses import figures

    made = ROOT / "report" / "results.json"
    if not made.exists():
        pytest.skip("no report here: circuits reproduce makes it")
    found = json.loads(made.read_text())["figures"]
    usual = {name: ", ".join(one.shown()) or None for name, one in figures.EVERY.items()}
    if {name: figure["model"] for name, figure in found.items()} != usual:
        pytest.skip("the report here is not that of circuits reproduce")
    for paper, (_, *counts) in verdicts().items():
        kinds = Counter(kind(one) for name, one in found.items() if name.startswith(f"{paper}/"))
        columns = ("holds", "does not hold", "not testable here", "identity", "no claim")
        assert [kinds[column] for column in columns] == counts, paper


def kind(figure: dict) -> str:
    """The column of the README's table that a figure of the report counts in."""
    if figure["same_as"] or figure["state"] == "illustration":
        return "no claim"
    return "identity" if figure["identity"] and figure["holds"] else figure["state"]


def test_its_tables_name_every_folder_from_the_ground_up():
    house = README[README.index("## The folders") : README.index("## Three promises")]
    circuits, analyses = house.split("`analyses` measures")
    for package, part in (("circuits", circuits), ("analyses", analyses)):
        listed = re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE)
        folders = [room for room in FLOORS[package] if f"{package}/{room}" in FLOORS]
        assert set(folders) <= set(listed), package
        assert [room for room in listed if room in folders] == folders, "not from the ground up"


def test_links_lead_somewhere():
    for page in PAGES:
        links = set(re.findall(r"\]\(([^)#]+)\)", page.read_text()))
        here = {link for link in links if "://" not in link}
        assert all((page.parent / link).exists() for link in here), page
    assert {page.relative_to(ROOT).as_posix() for page in PAGES[1:]} <= set(
        re.findall(r"\]\(([^)#]+)\)", README)
    )


def test_the_glossary_is_in_order():
    words = re.findall(r"^\| (?!word|---)([^|]+) \|", (ROOT / "notebooks/glossary.md").read_text(),
                       re.MULTILINE)  # fmt: skip
    assert len(words) > 30 and words == sorted(words, key=str.lower)


def test_how_to_cite_it_names_the_papers_and_the_version():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert len(cff["references"]) == 2 and all(paper["url"] for paper in cff["references"])
    assert f'version = "{cff["version"]}"' in (ROOT / "pyproject.toml").read_text()
