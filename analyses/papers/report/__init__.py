"""Figures and verdicts -> one folder: index.html, each figure as PNG and SVG, results.json.

- write: draws figures and puts the report into a folder.
- known: the name of a figure, or an error with the nearest name.
- Entry: what the report knows of one figure.
- PAPERS: the titles of the papers.
- plain_matplotlib: matplotlib's own settings for a while.
"""

from analyses.papers.report.entries import PAPERS, Entry, plain_matplotlib
from analyses.papers.report.folder import known, write

__all__ = ["PAPERS", "Entry", "known", "plain_matplotlib", "write"]
