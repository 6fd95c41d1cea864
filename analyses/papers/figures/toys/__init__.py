"""Figures of small models that are trained while the figure is drawn."""

from analyses.papers.figures.toys import bietti, cipher, edelman, nichani, pattern_matching

MODULES = (bietti, edelman, nichani, pattern_matching, cipher)
__all__ = ["MODULES"]
