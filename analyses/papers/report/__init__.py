"""Figures and verdicts -> one folder: index.html, each figure as PNG and SVG, results.json."""

from analyses.papers.report.entries import PAPERS, Entry, plain_matplotlib
from analyses.papers.report.folder import known, write
from analyses.papers.report.page import page

__all__ = ["PAPERS", "Entry", "known", "page", "plain_matplotlib", "write"]
