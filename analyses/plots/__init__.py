"""Labelled results as pictures. A plot computes nothing but positions and colours.

Attention and scores keep the limits in `attrs["bounds"]`. Quantities with a sign have a diverging
map centred on 0. Every function draws into the Axes that it is given, or makes them, and returns
them.

- attention: attention patterns, one panel for each head.
- heatmap: any result of two dims as a matrix.
- eigenvalues: the eigenvalues of a circuit in the complex plane.
- role_legend: a legend of the roles of heads.
- bars: a score of every head, beside a control.
- paired_bars: numbers with a sign, beside their controls.
- lines: scores over a coordinate, one line each.
- scatter: one score of every head against another.
- histogram: how many heads have which score.
- shares: shares with their errors, as a row of dots for each part.
- composition: composition scores of all pairs of heads.
- wiring: composition scores as wires between the heads.
- circuit: a circuit as a graph.
- agreement: estimated effects against exact ones.
- roc: how well estimates find a known circuit.
- sizes: how the effect of a circuit grows with its edges.
- text: a text coloured token by token.
- token_table: a table of tokens with their numbers.
- spelling_grid: the skip-trigrams that pieces of words spell; forced ones are framed.
- terms: the terms of an expansion with their sizes.
- formula: lines of formulas and words.
- steps: the parts of a model from bottom to top.
- Step: one part of a model in such a picture.
- chains: products of matrices, as rectangles in a row.
- arrows: what attention moves from token to token.
- heads: a score of every head over training.
- over_training: a measure over training, a line for each entry.
- loss_map: a loss over training and over another coordinate.
- path: how losses move through a plane while a model trains.
- window: marks the phase change in a panel.
- grid: a grid of panels.
- show_token: a token as a label: blanks and line ends are made visible.
- literal: a text in which dollars are drawn as they are.
- CONTROL: the colour of what was not trained.
- TRAINED: the colour of what was trained.
- WINDOW: the colour of the phase change.
- LAYERS: the colours of layers.
- ROLE_COLOURS: the colours of the roles of heads.
- RUNS: the colours of runs.
"""

from analyses.plots.canvas import CONTROL, ROLE_COLOURS, TRAINED, grid, literal, show_token
from analyses.plots.circuits import agreement, circuit, roc, sizes
from analyses.plots.composition import composition, wiring
from analyses.plots.heads import bars, histogram, lines, paired_bars, scatter, shares
from analyses.plots.matrices import attention, eigenvalues, heatmap, role_legend
from analyses.plots.schematics import Step, arrows, chains, formula, steps, terms
from analyses.plots.tables import spelling_grid, token_table
from analyses.plots.text import text
from analyses.plots.training import (
    LAYERS,
    RUNS,
    WINDOW,
    heads,
    loss_map,
    over_training,
    path,
    window,
)

__all__ = [
    "CONTROL",
    "LAYERS",
    "ROLE_COLOURS",
    "RUNS",
    "TRAINED",
    "WINDOW",
    "Step",
    "agreement",
    "arrows",
    "attention",
    "bars",
    "chains",
    "circuit",
    "composition",
    "eigenvalues",
    "formula",
    "grid",
    "heads",
    "heatmap",
    "histogram",
    "lines",
    "literal",
    "loss_map",
    "over_training",
    "paired_bars",
    "path",
    "roc",
    "role_legend",
    "scatter",
    "shares",
    "show_token",
    "sizes",
    "spelling_grid",
    "steps",
    "terms",
    "text",
    "token_table",
    "window",
    "wiring",
]
