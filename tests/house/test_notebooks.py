"""Every notebook runs from top to bottom, has short cells, and is small."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_the_readme_lists_the_notebooks_in_reading_order():
    listed = re.findall(r"\(notebooks/([^)]*\.ipynb)\)", (ROOT / "README.md").read_text())
    assert listed and listed == [path.name for path in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    options = {"timeout": 300, "resources": {"metadata": {"path": str(path.parent.parent)}}}
    NotebookClient(notebook, kernel_name="python3", **options).execute()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_small_and_was_executed(path):
    assert path.stat().st_size < 500_000
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) <= 15 and all(cell["execution_count"] for cell in code)
    assert all(len(cell["source"]) <= 12 for cell in code)
    assert all(output["output_type"] != "error" for cell in code for output in cell["outputs"])
