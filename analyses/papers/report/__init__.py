"""The report: one folder with index.html, each figure as PNG and SVG, and results.json.

- write: draws figures and puts the report into a folder.
- known: the name of a figure, or an error with the nearest name.
- Entry: the words, files and state of one figure in the report.
- PAPERS: the titles of the papers.
- plain_matplotlib: a block that runs with matplotlib's own settings.
"""

from analyses.papers.report.entries import PAPERS, Entry, plain_matplotlib
from analyses.papers.report.folder import known, write

__all__ = ["PAPERS", "Entry", "known", "plain_matplotlib", "write"]
