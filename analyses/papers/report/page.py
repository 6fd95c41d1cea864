"""The report as one HTML page that needs no network: verdicts on top, then figure by figure."""

import shlex
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from analyses.papers.report.arguments import FILE as ARGUMENTS
from analyses.papers.report.entries import PAPERS, Entry
from analyses.papers.report.words import mark, models_in_html, number, paper_and_here, sentence_case

SMALL = 120_000
"Bytes up to which the page shows the SVG itself; a larger one stands behind its PNG."


def page(entries: Sequence[Entry], folder: Path) -> str:
    """The whole page; pictures lie in `folder`, beside where it will be written."""
    papers: dict[str, list[Entry]] = {}
    for entry in entries:
        papers.setdefault(entry.paper, []).append(entry)
    style = (
        resources.files("analyses.papers.report").joinpath("style.css").read_text(encoding="utf-8")
    )
    models = models_in_html([name for entry in entries for name in entry.models])
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


def _sentence(entries: Sequence[Entry]) -> str:
    """Counts in words: "Four figures: three show what the paper found and one does not."."""
    verdicts = [entry.verdict for entry in entries if entry.verdict]
    held = sum(verdict.holds for verdict in verdicts)
    left_out = sum(bool(entry.left_out) for entry in entries)
    failed = len(entries) - len(verdicts) - left_out
    figures = "figure" if len(entries) == 1 else "figures"
    parts = [
        f"{number(held)} {'shows' if held == 1 else 'show'} what the paper found",
        f"{number(len(verdicts) - held)} {'does' if len(verdicts) - held == 1 else 'do'} not",
    ]
    if failed:
        parts.append(f"{number(failed)} could not be drawn")
    if left_out:
        parts.append(f"{number(left_out)} {'is' if left_out == 1 else 'are'} left out")
    listed = ", ".join(parts[:-1]) + f" and {parts[-1]}"
    return f"{number(len(entries)).capitalize()} {figures}: {listed}."


def _paper(paper: str) -> str:
    return escape(PAPERS.get(paper, paper))


def _summary(paper: str, entries: Sequence[Entry]) -> str:
    rows = "\n".join(_row(entry) for entry in entries)
    arguments = ""
    if paper == "induction":
        arguments = (
            f'<p><a href="{ARGUMENTS}">What held and what did not: its six arguments</a></p>\n'
        )
    return (
        f'<section class="summary"><h2><a href="#{escape(paper)}">{_paper(paper)}</a></h2>\n'
        f"<p>{_sentence(entries)}</p>\n{arguments}<table><thead><tr><th>Figure</th><th>Verdict</th>"
        f"<th>The paper</th><th>Here</th></tr></thead>\n<tbody>{rows}</tbody></table></section>"
    )


def _row(entry: Entry) -> str:
    link = f'<a href="#{escape(entry.name)}">{escape(entry.title or entry.name)}</a>'
    model = f"<small>{models_in_html(entry.models)}</small>"
    first = f"<td>{link} {model}</td><td>{mark(entry)}</td>"
    if entry.verdict is None:
        return f'<tr>{first}<td colspan="2">{escape(entry.left_out or entry.error)}</td></tr>'
    paper, here = (escape(sentence_case(part)) for part in paper_and_here(entry.verdict.says))
    return (
        f'<tr>{first}<td data-label="The paper">{paper}</td><td data-label="Here">{here}</td></tr>'
    )


def _section(entry: Entry, folder: Path) -> str:
    if entry.verdict is None:
        body = f'<p class="error">{mark(entry)} {escape(entry.left_out or entry.error)}</p>'
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
    paper, here = (escape(sentence_case(part)) for part in paper_and_here(entry.verdict.says))
    claim = f"<dt>The paper</dt><dd>{paper}.</dd>" if paper else ""
    return f'<div class="verdict">{mark(entry)}<dl>{claim}<dt>Here</dt><dd>{here}.</dd></dl></div>'


def _foot(entry: Entry) -> str:
    asked = f" --model {shlex.quote(entry.model)}" if entry.model else ""
    command = escape(f"circuits draw {entry.name}{asked}")
    files = "" if entry.verdict is None else (
        f' as <a href="{entry.file}.png">PNG</a>, <a href="{entry.file}.svg">SVG</a>;'
    )  # fmt: skip
    source = f"<p>{_linked(entry.source)}</p>" if entry.source else ""
    return (
        f"<footer>{source}<p>Drawn from {models_in_html(entry.models)}{files} again by "
        f"<code>{command}</code></p></footer>"
    )


def _linked(source: str) -> str:
    words, _, url = source.rpartition(", ")
    if not url.startswith("https://"):
        return escape(source)
    return f'<a class="source" href="{escape(url)}">{escape(words)}</a>'


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
