"""The doors as users meet them: without the type checker, in a second pytest.

The tests are in bad_models.py, bad_files.py, bad_analyses.py and bad_faith.py, plain files of tests
that can also be run alone: pytest -o addopts= tests/doors/bad_models.py.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("names", "least"), [
    (("bad_models.py", "bad_files.py", "bad_analyses.py"), 39),
    (("bad_faith.py",), 60),
])  # fmt: skip
def test_bad_input_and_hostile_files_are_refused_in_words_without_the_type_checker(names, least):
    files = [f"tests/doors/{name}" for name in names]
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", *files]
    here = {**os.environ, "PYTHONPATH": str(ROOT), "CIRCUITS_LITTLE_MEMORY": "yes"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=here, timeout=240,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-9000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed[1]) >= least, "tests were lost"
