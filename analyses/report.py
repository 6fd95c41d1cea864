"""Figures and verdicts -> one folder: index.html, each figure as PNG and SVG, results.json."""

import html
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from analyses.figures import FIGURES, Drawing
from circuits.model import GPT

PAPERS = {
    "framework": "A Mathematical Framework for Transformer Circuits",
    "induction": "In-context Learning and Induction Heads",
}


@dataclass(frozen=True)
class Entry:
    """One figure of the report: drawn, or failed with an error."""

    name: str
    drawing: Drawing | None
    error: str = ""


def write(
    model: GPT,
    model_name: str,
    out: Path,
    names: Sequence[str] = tuple(FIGURES),
    done: Callable[[Entry], None] = lambda entry: None,
) -> list[Entry]:
    """Draw the named figures and put the report in `out`; `done` is called after each figure.

    A figure that fails stands in the report with its error, and the others are drawn. The folder
    is only replaced when the new report is whole; ValueError if it holds anything but a report.
    """
    if out.exists() and any(out.iterdir()) and not (out / "results.json").exists():
        raise ValueError(f"{out} holds files that are no report; choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        entries = []
        for name in names:
            entries.append(_drawn(name, model, staging))
            done(entries[-1])
        (staging / "index.html").write_text(page(entries, model_name), encoding="utf-8")
        (staging / "results.json").write_text(_results(entries, model_name), encoding="utf-8")
        staging.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        os.replace(staging, out)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return entries


def _drawn(name: str, model: GPT, folder: Path) -> Entry:
    before = set(plt.get_fignums())
    try:
        drawing = FIGURES[name](model)
        for kind in ("png", "svg"):
            file = folder / f"{name.replace('/', '-')}.{kind}"
            drawing.figure.savefig(file, dpi=160, facecolor="white")
        return Entry(name, drawing)
    except Exception as error:  # the report goes on, and says so
        return Entry(name, None, f"{type(error).__name__}: {error}")
    finally:
        for number in set(plt.get_fignums()) - before:
            plt.close(number)


def _results(entries: Sequence[Entry], model_name: str) -> str:
    rows = {
        entry.name: {"error": entry.error}
        if entry.drawing is None
        else {"holds": entry.drawing.verdict.holds, "says": entry.drawing.verdict.says}
        for entry in entries
    }
    return json.dumps({"model": model_name, "figures": rows}, indent=2, ensure_ascii=False) + "\n"


def page(entries: Sequence[Entry], model_name: str) -> str:
    """The report as one HTML page that needs no network; pictures lie beside it."""
    rows = "\n".join(_row(entry) for entry in entries)
    papers = dict.fromkeys(entry.name.split("/")[0] for entry in entries)
    sections = "\n".join(
        f"<h2>{html.escape(PAPERS.get(paper, paper))}</h2>"
        + "\n".join(
            _section(entry, model_name) for entry in entries if entry.name.startswith(f"{paper}/")
        )
        for paper in papers
    )
    model = html.escape(model_name)
    return _PAGE.format(model=model, rows=rows, sections=sections)


def _row(entry: Entry) -> str:
    title = entry.drawing.title if entry.drawing else entry.name
    says = entry.drawing.verdict.says if entry.drawing else entry.error
    return (
        f'<tr><td><a href="#{entry.name}">{html.escape(title)}</a></td>'
        f"<td>{_mark(entry)}</td><td>{html.escape(says)}</td></tr>"
    )


def _mark(entry: Entry) -> str:
    if entry.drawing is None:
        return '<b class="failed">failed</b>'
    held = entry.drawing.verdict.holds
    return '<b class="holds">✓ holds</b>' if held else '<b class="not">✗ does not hold</b>'


def _section(entry: Entry, model_name: str) -> str:
    command = f"circuits draw {entry.name} --model {model_name}"
    if entry.drawing is None:
        body = f"<p>{html.escape(entry.error)}</p>"
        title = entry.name
    else:
        title, file = entry.drawing.title, entry.name.replace("/", "-")
        body = (
            f'<a href="{file}.svg"><img src="{file}.png" alt="{html.escape(title)}"></a>'
            f"<p>{html.escape(entry.drawing.caption)}</p>"
            f"<p>{_mark(entry)} {html.escape(entry.drawing.verdict.says)}.</p>"
            f'<p class="small">{_linked(entry.drawing.source)}</p>'
        )
    return (
        f'<section id="{entry.name}"><h3>{html.escape(title)}</h3>{body}'
        f'<p class="small"><code>{html.escape(command)}</code></p></section>'
    )


def _linked(source: str) -> str:
    words, _, url = source.rpartition(", ")
    return f'{html.escape(words)}, <a href="{html.escape(url)}">{html.escape(url)}</a>'


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>circuits: {model}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --faint: #666; --line: #ddd; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e8e8; --paper: #16181b; --faint: #a0a0a0; --line: #383c42; }}
}}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; height: auto; background: #fff; border-radius: 4px; }}
table {{ border-collapse: collapse; width: 100%; }}
td {{ border-top: 1px solid var(--line); padding: .4rem .8rem .4rem 0; vertical-align: top; }}
td:nth-child(2) {{ white-space: nowrap; }}
section {{ margin: 2.5rem 0; break-inside: avoid; }}
a {{ color: inherit; }}
.small {{ color: var(--faint); font-size: .85rem; overflow-wrap: anywhere; }}
.holds {{ color: #00825a; }} .not {{ color: #b85c00; }} .failed {{ color: #c02020; }}
@media (max-width: 40rem) {{ td {{ display: block; border: 0; padding: 0; }}
  tr {{ display: block; border-top: 1px solid var(--line); padding: .5rem 0; }} }}
</style></head><body>
<h1>Circuits of {model}</h1>
<p>Each figure was drawn from this model just now, and each verdict computed from the same numbers.
A verdict that does not hold is a finding about this model.</p>
<table>{rows}</table>
{sections}
</body></html>
"""
