"""DataFrame -> HTML: tables of tokens coloured by their values, for the report and pages of their
own. Colours are laid thinly over the page, so that its ink reads in light and in dark."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from pandas import DataFrame
from xarray import DataArray

from analyses.plots.canvas import show_token
from analyses.plots.cells import Cell, Piece, cells, check_columns, colour, ends
from analyses.plots.templates import render

__all__ = ["colour", "fragment", "grid", "page", "table"]


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
    check_columns(frame, [*tokens, *(scales or {})])
    found = ends(frame, scales or {})
    head = [Cell(str(name).replace("_", " ")) for name in frame]
    scale = "; ".join(f"{name.replace('_', ' ')} ±{end:.3g}" for name, end in found.items())
    said = f"{caption} Full colour: {scale} (blue above 0, orange below)." if found else caption
    return _rendered("tables.html", caption=said, head=head, rows=cells(frame, tokens, found))


def grid(result: DataArray, *, caption: str, marked: DataArray | None = None) -> str:
    """A DataArray (row, column) with tokens along both as an HTML table: each number on its colour,
    the scale ending at the largest size; cells where `marked` is true are framed.

    ValueError unless there are two dims.
    """
    if result.ndim != 2:
        raise ValueError(f"a grid has two dims, got {result.dims}")
    end = float(np.abs(result.values).max(initial=0.0)) or 1.0
    frames = np.zeros(result.shape, bool) if marked is None else marked.values
    row_dim, column_dim = result.dims
    names, columns = ([Cell(pieces=(Piece(show_token(str(name))),)) for name in result[dim].values]
                      for dim in result.dims)  # fmt: skip
    rows = [
        [name, *(Cell(f"{value:+.3g}", None, colour(value, end), True, bool(frame))
                 for value, frame in zip(values.tolist(), framed, strict=True))]
        for name, values, framed in zip(names, result.values, frames, strict=True)
    ]  # fmt: skip
    said = f"{caption} Full colour: ±{end:.3g} (blue above 0, orange below)."
    head = [Cell(f"{row_dim} \\ {column_dim}"), *columns]
    return _rendered("tables.html", caption=said, head=head, rows=rows)


def fragment(*tables: str, page: str = "", words: str = "", names: Iterable[str] = ()) -> str:
    """Tables with the one copy of the style that they need, to stand in a page of any look; below
    them, links in `words` to a page and to its sections of these names."""
    return _rendered("fragment.html", parts=tables, file=page, words=words, names=list(names))


def page(title: str, *parts: str, note: str = "", sections: Mapping[str, str] | None = None) -> str:
    """A whole HTML document of these parts and named sections, light or dark as the reader's system
    is, which needs no network."""
    return _rendered("page.html", title=title, note=note, parts=parts, sections=sections or {})


def _rendered(name: str, **values: object) -> str:
    return render("analyses.plots", name, **values)
