"""The report as one HTML page that needs no network: verdicts on top, then figure by figure."""

import shlex
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from analyses.report.entries import PAPERS, Entry

SMALL = 120_000
"Bytes up to which the page shows the SVG itself; a larger one stands behind its PNG."
NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS += ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"]
NUMBERS += ["eighteen", "nineteen", "twenty"]


def page(entries: Sequence[Entry], folder: Path) -> str:
    """The whole page; pictures lie in `folder`, beside where it will be written."""
    papers: dict[str, list[Entry]] = {}
    for entry in entries:
        papers.setdefault(entry.paper, []).append(entry)
    style = resources.files("analyses.report").joinpath("style.css").read_text(encoding="utf-8")
    models = _models([name for entry in entries for name in entry.models])
    return _PAGE.format(
        style=style,
        counts=_sentence(entries),
        models=models,
        summary="\n".join(_summary(paper, group) for paper, group in papers.items()),
        sections="\n".join(
            f'<h2 id="{escape(paper)}">{_paper(paper)}</h2>\n'
            + "\n".join(_section(entry, folder) for entry in group)
            for paper, group in papers.items()
        ),
    )


def paper_and_here(says: str) -> tuple[str, str]:
    """A verdict's words in two: what the paper found, and what was found here."""
    paper, found, here = says.partition("; here")
    if not found:
        return "", says
    return paper.removeprefix("paper:").strip(), here.lstrip(" ,:")


def _sentence(entries: Sequence[Entry]) -> str:
    """Counts in words: "Four figures: three show what the paper found and one does not."."""
    verdicts = [entry.verdict for entry in entries if entry.verdict]
    held = sum(verdict.holds for verdict in verdicts)
    left_out = sum(bool(entry.left_out) for entry in entries)
    failed = len(entries) - len(verdicts) - left_out
    figures = "figure" if len(entries) == 1 else "figures"
    parts = [
        f"{_number(held)} {'shows' if held == 1 else 'show'} what the paper found",
        f"{_number(len(verdicts) - held)} {'does' if len(verdicts) - held == 1 else 'do'} not",
    ]
    if failed:
        parts.append(f"{_number(failed)} could not be drawn")
    if left_out:
        parts.append(f"{_number(left_out)} {'is' if left_out == 1 else 'are'} left out")
    listed = ", ".join(parts[:-1]) + f" and {parts[-1]}"
    return f"{_number(len(entries)).capitalize()} {figures}: {listed}."


def _number(n: int) -> str:
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def _paper(paper: str) -> str:
    return escape(PAPERS.get(paper, paper))


def _summary(paper: str, entries: Sequence[Entry]) -> str:
    rows = "\n".join(_row(entry) for entry in entries)
    return (
        f'<section class="summary"><h2><a href="#{escape(paper)}">{_paper(paper)}</a></h2>\n'
        f"<p>{_sentence(entries)}</p>\n<table><thead><tr><th>Figure</th><th>Verdict</th>"
        f"<th>The paper</th><th>Here</th></tr></thead>\n<tbody>{rows}</tbody></table></section>"
    )


def _row(entry: Entry) -> str:
    link = f'<a href="#{escape(entry.name)}">{escape(entry.title or entry.name)}</a>'
    model = f"<small>{_models(entry.models)}</small>"
    first = f"<td>{link} {model}</td><td>{_mark(entry)}</td>"
    if entry.verdict is None:
        return f'<tr>{first}<td colspan="2">{escape(entry.left_out or entry.error)}</td></tr>'
    paper, here = (escape(_sentence_case(part)) for part in paper_and_here(entry.verdict.says))
    return (
        f'<tr>{first}<td data-label="The paper">{paper}</td><td data-label="Here">{here}</td></tr>'
    )


def _models(names: Sequence[str]) -> str:
    """Names of models, each once; words for a figure that trains its own."""
    named = ", ".join(f"<code>{escape(name)}</code>" for name in dict.fromkeys(names))
    return named or "a model of its own"


def _mark(entry: Entry) -> str:
    if entry.left_out:
        return '<b class="mark">– left out</b>'
    if entry.verdict is None:
        return '<b class="mark failed">! failed</b>'
    if entry.verdict.holds:
        return '<b class="mark holds">✓ holds</b>'
    return '<b class="mark not">✗ does not hold</b>'


def _section(entry: Entry, folder: Path) -> str:
    if entry.verdict is None:
        body = f'<p class="error">{_mark(entry)} {escape(entry.left_out or entry.error)}</p>'
    else:
        body = "\n".join([_picture(entry, folder), _fragment(entry), _verdict(entry)])
    return (
        f'<section class="figure" id="{escape(entry.name)}">'
        f"<h3>{escape(entry.title or entry.name)}</h3>\n{body}\n{_foot(entry)}</section>"
    )


def _picture(entry: Entry, folder: Path) -> str:
    file, (width, height) = entry.file, entry.size
    shown = "svg" if (folder / f"{file}.svg").stat().st_size <= SMALL else "png"
    return (
        f'<figure><div class="picture"><a href="{file}.svg"><img src="{file}.{shown}" '
        f'width="{width}" height="{height}" style="--width: {width}px" '
        f'alt="{escape(entry.title)}"></a></div>\n'
        f"<figcaption>{escape(entry.caption)}</figcaption></figure>"
    )


def _fragment(entry: Entry) -> str:
    return f'<div class="fragment">{entry.html}</div>' if entry.html else ""


def _verdict(entry: Entry) -> str:
    assert entry.verdict is not None
    paper, here = (escape(_sentence_case(part)) for part in paper_and_here(entry.verdict.says))
    claim = f"<dt>The paper</dt><dd>{paper}.</dd>" if paper else ""
    return f'<div class="verdict">{_mark(entry)}<dl>{claim}<dt>Here</dt><dd>{here}.</dd></dl></div>'


def _foot(entry: Entry) -> str:
    asked = f" --model {shlex.quote(entry.model)}" if entry.model else ""
    command = escape(f"circuits draw {entry.name}{asked}")
    files = "" if entry.verdict is None else (
        f' as <a href="{entry.file}.png">PNG</a>, <a href="{entry.file}.svg">SVG</a>;'
    )  # fmt: skip
    source = f"<p>{_linked(entry.source)}</p>" if entry.source else ""
    return (
        f"<footer>{source}<p>Drawn from {_models(entry.models)}{files} again by "
        f"<code>{command}</code></p></footer>"
    )


def _linked(source: str) -> str:
    words, _, url = source.rpartition(", ")
    if not url.startswith("https://"):
        return escape(source)
    return f'<a class="source" href="{escape(url)}">{escape(words)}</a>'


def _sentence_case(words: str) -> str:
    return words[:1].upper() + words[1:]


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>circuits: the papers' figures</title>
<style>
{style}</style></head><body>
<header><h1>The papers' figures, drawn again</h1>
<p class="lead">{counts}</p>
<p>Drawn from {models}. Each verdict was computed from the numbers that are drawn; one that does
not hold is a finding about these models.</p></header>
<nav>{summary}</nav>
<main>{sections}</main>
</body></html>
"""
