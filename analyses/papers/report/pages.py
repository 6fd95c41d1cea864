"""The pages of the report: the verdicts and all figures, and the six arguments with their evidence.
The pages need no network."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from analyses.papers.report.arguments import ARGUMENTS, ELSEWHERE, FILE
from analyses.papers.report.entries import PAPERS, Entry
from analyses.plots.templates import render

SMALL = 120_000
"The page shows an SVG of up to this number of bytes. A larger SVG is linked from its PNG."
COUNTED = {
    "holds": ("shows what the paper found", "show what the paper found"),
    "does not hold": ("does not", "do not"),
    "identity": ("is an identity, which holds in every model",
                 "are identities, which hold in every model"),
    "illustration": ("illustrates a drawing of the paper", "illustrate a drawing of the paper"),
    "again": ("shows the test of another figure", "show the test of another figure"),
    "not testable here": ("cannot be tested here", "cannot be tested here"),
    "failed": ("could not be drawn", "could not be drawn"),
    "left out": ("is left out", "are left out"),
}  # fmt: skip
"The words that count one figure and several figures, by kind."


def index(entries: Sequence[Entry], folder: Path) -> str:
    """The page of all figures. The pictures lie in `folder`, where the page will be written."""
    papers: dict[str, list[Entry]] = {}
    for entry in entries:
        papers.setdefault(entry.figure.paper, []).append(entry)
    return _rendered(
        "index.html",
        entries,
        papers=papers,
        titles=PAPERS,
        counts=counts,
        ending=lambda entry: _ending(entry, folder),
        linked=_linked,
        command=_command,
        arguments=FILE,
    )


def statement(entries: Sequence[Entry]) -> str:
    """The page of the six arguments, with the figures that were drawn for this report."""
    found = [(one, one.drawn(entries)) for one in ARGUMENTS]
    named = {name for one in ARGUMENTS for name in one.figures}
    beside = [one for one in entries
              if one.figure.paper == "induction" and one.name not in named]  # fmt: skip
    shown = [entry for _, drawn in found for entry in drawn]
    return _rendered("arguments.html", shown, found=found, beside=beside, elsewhere=ELSEWHERE)


def counts(entries: Sequence[Entry]) -> str:
    """The counts of all kinds: "4 figures: 3 show what the paper found and 1 does not."."""
    found = Counter(entry.kind for entry in entries)
    always = ("holds", "does not hold")
    parts = [f"{found[kind]} {words[found[kind] != 1]}" for kind, words in COUNTED.items()
             if found[kind] or kind in always]  # fmt: skip
    figures = "1 figure" if len(entries) == 1 else f"{len(entries)} figures"
    return f"{figures}: {', '.join(parts[:-1])} and {parts[-1]}."


def _rendered(template: str, shown: Sequence[Entry], **values: object) -> str:
    models = dict.fromkeys(name for entry in shown for name in (*entry.models, *entry.judged))
    return render("analyses.papers.report", template, models=list(models), **values)


def _ending(entry: Entry, folder: Path) -> str:
    return "svg" if (folder / f"{entry.file}.svg").stat().st_size <= SMALL else "png"


def _linked(source: str) -> tuple[str, str]:
    """The words of a source, and its URL if it ends in one."""
    words, _, url = source.rpartition(", ")
    return (words, url) if url.startswith("https://") else (source, "")


def _command(entry: Entry) -> str:
    asked = f" --model {shlex.quote(entry.model)}" if entry.model else ""
    return f"circuits draw {entry.name}{asked}"
