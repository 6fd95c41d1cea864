"""Figures that train their own small models when they are drawn, and one dict of them."""

from collections.abc import Callable

from analyses.figures.drawing import Drawing
from analyses.figures.toys_bietti import triggers
from analyses.figures.toys_edelman import markov_chains
from analyses.figures.toys_nichani import causal_graph
from analyses.figures.toys_pattern_matching import pattern_matching

TOYS: dict[str, Callable[[], Drawing]] = {
    "induction/triggers": triggers,
    "induction/markov-chains": markov_chains,
    "induction/causal-graph": causal_graph,
    "induction/pattern-matching": pattern_matching,
}
