"""DataFrame -> HTML: tables of tokens coloured by their values, for the report and pages of their
own. Colours are laid thinly over the page, so that its ink reads in light and in dark."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from numbers import Real

import numpy as np
from pandas import DataFrame
from xarray import DataArray

from analyses.plots import show_token

STYLE = """.table { overflow-x: auto; margin: 1rem 0; }
.table table { border-collapse: collapse; width: auto; font-size: .85rem; }
.table caption { text-align: left; padding: .3rem 0; }
.table tr { display: table-row; border: 0; padding: 0; }
.table th, .table td { display: table-cell; text-align: left; vertical-align: top;
  padding: .25rem .6rem; border-top: 1px solid rgba(128, 128, 128, .35); }
.table .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.table .token { font-family: ui-monospace, monospace; white-space: nowrap; padding: .1rem .3rem;
  margin-right: .2rem; border-radius: 3px; display: inline-block; }
.table .marked { outline: 2px solid currentColor; outline-offset: -2px; }
"""
"Carried once by a fragment (`fragment`) or a page (`page`)."
DEEPEST = 0.6
"Opacity at the end of the scale: text of either page keeps a contrast of 4.5 or more on it."
BLUE, ORANGE = "0, 114, 178", "213, 94, 0"
"Okabe and Ito's, for values above and below 0."


def colour(value: float, scale: float) -> str:
    """A CSS colour for a value: from clear at 0 to blue at `scale`, to orange at -`scale`, and no
    deeper beyond. ValueError unless scale is above 0."""
    if not scale > 0:
        raise ValueError(f"a scale of colours ends above 0, got {scale}")
    strength = DEEPEST * min(abs(value) / scale, 1.0)
    return f"rgba({BLUE if value >= 0 else ORANGE}, {strength:.2f})"


def table(
    frame: DataFrame,
    *,
    caption: str,
    tokens: Sequence[str] = (),
    scales: Mapping[str, float] | None = None,
) -> str:
    """A DataFrame as one HTML table in a box that scrolls by itself.

    `tokens` names columns of tokens. A cell that is a list of (token, value) has each token on the
    colour of its value; `scales` gives the end of the scale of such a column, by default the
    largest size in it, and is said in the caption; a column of numbers has colours only if named
    there. Everything is escaped, whitespace of tokens shown. KeyError for a column not there.
    """
    given = dict(scales or {})
    missing = [name for name in (*tokens, *given) if name not in frame]
    if missing:
        raise KeyError(f"no columns {missing}; there are {list(frame)}")
    ends = {
        name: given[name] if name in given else _largest(frame[name])
        for name in frame
        if name in given or any(isinstance(cell, list) for cell in frame[name])
    }
    head = "".join(f"<th>{escape(str(name)).replace('_', ' ')}</th>" for name in frame)
    rows = [
        "".join(_cell(row[name], name in tokens, ends.get(name)) for name in frame)
        for row in frame.to_dict("records")
    ]
    scale = "; ".join(f"{str(name).replace('_', ' ')} ±{end:.3g}" for name, end in ends.items())
    said = f"{caption} Full colour: {scale} (blue above 0, orange below)." if ends else caption
    return _box(said, head, rows)


def grid(result: DataArray, *, caption: str, marked: DataArray | None = None) -> str:
    """A DataArray (row, column) with tokens along both as an HTML table: each number on its colour,
    the scale ending at the largest size; cells where `marked` is true are framed.

    ValueError unless there are two dims.
    """
    if result.ndim != 2:
        raise ValueError(f"a grid has two dims, got {result.dims}")
    end = _end(float(np.abs(result.values).max(initial=0.0)))
    row_dim, column_dim = result.dims
    head = f"<th>{escape(str(row_dim))} \\ {escape(str(column_dim))}</th>" + "".join(
        f"<th>{_token(str(name))}</th>" for name in result[column_dim].values
    )
    rows = []
    for i, name in enumerate(result[row_dim].values):
        cells = [f"<td>{_token(str(name))}</td>"]
        for j, value in enumerate(result.values[i].tolist()):
            framed = " marked" if marked is not None and bool(marked.values[i, j]) else ""
            cells.append(f'<td class="number{framed}" style="background:{colour(value, end)}">'
                         f"{value:+.3g}</td>")  # fmt: skip
        rows.append("".join(cells))
    said = f"{caption} Full colour: ±{end:.3g} (blue above 0, orange below)."
    return _box(said, head, rows)


def fragment(*tables: str) -> str:
    """Tables with the one copy of STYLE that they need, to stand in a page of any look."""
    return f"<style>{STYLE}</style>" + "\n".join(tables)


def page(title: str, *parts: str) -> str:
    """A whole HTML document of these parts, light or dark as the reader's system is, which needs no
    network."""
    body = "\n".join(parts)
    return _PAGE.format(title=escape(title), style=STYLE, body=body)


def _box(caption: str, head: str, rows: Sequence[str]) -> str:
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="table"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _cell(value: object, is_token: bool, scale: float | None) -> str:
    if isinstance(value, list):
        return f"<td>{' '.join(_token(str(name), number, scale) for name, number in value)}</td>"
    if is_token:
        return f"<td>{_token(str(value))}</td>"
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        shown = f"{number:,.0f}" if isinstance(value, int | np.integer) else f"{number:.3g}"
        style = f' style="background:{colour(number, scale)}"' if scale else ""
        return f'<td class="number"{style}>{shown}</td>'
    return f"<td>{escape(str(value))}</td>"


def _token(text: str, value: float | None = None, scale: float | None = None) -> str:
    """A token as an element; with a value, on its colour, the number shown when pointed at."""
    shown = escape(show_token(text))
    if value is None or scale is None:
        return f'<span class="token">{shown}</span>'
    style = f"background:{colour(value, scale)}"
    return f'<span class="token" style="{style}" title="{value:+.3g}">{shown}</span>'


def _largest(column: Iterable[object]) -> float:
    values = [abs(value) for cell in column if isinstance(cell, list) for _, value in cell]
    return _end(max(values, default=0.0))


def _end(largest: float) -> float:
    return largest if largest > 0 else 1.0


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8e8e8; --paper: #16181b; }} }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }}
a {{ color: inherit; }}
{style}</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
