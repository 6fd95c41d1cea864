"""A folder with a saved model, for the tests of bad input."""

import pytest

from circuits import save
from tests.doors.given import model


@pytest.fixture
def folder(tmp_path):
    save(model, tmp_path / "saved")
    return tmp_path
