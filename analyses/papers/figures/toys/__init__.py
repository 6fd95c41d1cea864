"""Figures of small models. Each figure trains its models when it is drawn."""

from analyses.papers.figures.toys import bietti, cipher, edelman, nichani, pattern_matching

MODULES = (bietti, edelman, nichani, pattern_matching, cipher)
__all__ = ["MODULES"]
