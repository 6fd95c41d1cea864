"""Reports of a few quick figures, and figures that are drawn by hand."""

import json

import matplotlib.pyplot as plt

from analyses.papers.figures.record import Figure, Finding

QUICK = ["framework/copying", "framework/eigenvalues", "framework/skip-trigrams"]
NO_TOKENIZER = "ValueError: skip-trigrams are words: the model has no tokenizer"
NASTY = "<script>alert('&')</script>"


def record(
    name="framework/by-hand", claim="much", here="little", html="", pages=(), shows=True, **fields
):
    """The record of a figure whose every word is given, and may be nasty; one that shows nothing
    cannot be tested."""

    def find(model=None) -> Finding:
        picture = (lambda: plt.subplots(figsize=(9, 3))[0]) if shows else None
        return Finding(False if shows else None, here, f"Caption {NASTY}", picture,
                       lambda: html, lambda: dict(pages))  # fmt: skip

    where = "Framework, a place"
    url = "https://example.org/"
    return Figure(name, f"Title {NASTY}", where, claim, find, url=url, **fields)


def results(out):
    return json.loads((out / "results.json").read_text())


def contents(out):
    """Every file of a report, less the seconds that it took."""
    found = {path.name: path.read_bytes() for path in out.iterdir()}
    plain = results(out)
    for figure in plain["figures"].values():
        del figure["seconds"]
    return found | {"results.json": json.dumps(plain).encode()}
