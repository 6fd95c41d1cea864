"""Text of ours for runs of the command line."""

import random

import pytest

from analyses.cli.corpus import EVERY


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefgh", k=draw.randint(2, 6))) for _ in range(60)]
    docs = [" ".join(draw.choices(words, k=40)) for _ in range(2 * EVERY + 10)]
    (folder / "ours.txt").write_text("\n<|endoftext|>\n".join(docs))
    return folder / "ours.txt"
