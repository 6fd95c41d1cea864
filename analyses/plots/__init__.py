"""Plots of results. A plot computes only positions and colours.

A plot takes (result, ax, title), and tokens after the result if it needs them. A result is a
DataArray; heatmap, bars, histogram, lines, text, terms and arrows also take a plain tensor or
array. A plot draws into the given Axes, or makes new Axes, and returns them. Attention and scores
keep the limits in `attrs["bounds"]`. Results with a sign have 0 in the middle of the colours.

- agreement: estimated effects against exact effects.
- arrows: an attention pattern as arrows from token to token.
- attention: attention patterns, one panel for each head.
- bars: a score of every head, with a control.
- chains: products of matrices, as rectangles in a row.
- circuit: a circuit as a graph.
- composition: composition scores of all pairs of heads.
- CONTROL: the colour of models that are not trained.
- eigenvalues: the eigenvalues of a circuit in the complex plane.
- formula: lines of formulas and words.
- grid: a grid of panels.
- head_points: a point for every head, at two scores.
- heatmap: any result of two dims as a matrix.
- histogram: the number of heads with each score.
- LAYERS: the colours of layers.
- lines: means with their errors over a coordinate, one line for each result.
- literal: a text with its dollars escaped, so that it is not drawn as a formula.
- loss_map: a loss over training and over the token index.
- over_training: a measure over training, a line for each entry.
- paired_bars: numbers with a sign, beside their controls.
- roc: how well scores find a known circuit.
- role_legend: a legend of the roles of heads.
- ROLE_COLOURS: the colours of the roles of heads.
- RUNS: the colours of runs.
- scatter: one score of every head against another score.
- shares: shares with their errors, as a row of dots for each component.
- show_token: a token as a label, with visible blanks and line ends.
- sizes: how the faithfulness of a circuit grows with its number of edges.
- spelling_grid: the skip-trigrams that pieces of words spell.
- Step: one component of a model in `steps`.
- steps: the components of a model from bottom to top.
- terms: the sizes of the terms of an expansion.
- text: a text coloured token by token.
- token_table: a table of tokens with their numbers.
- TRAINED: the colour of trained models.
- trajectory: how the losses of tokens move through a plane during training.
- window: marks the phase change in a panel.
- WINDOW: the colour of the phase change.
- wiring: composition scores as wires between the heads.
"""

from analyses.plots.canvas import (
    CONTROL,
    LAYERS,
    ROLE_COLOURS,
    TRAINED,
    grid,
    literal,
    show_token,
)
from analyses.plots.circuits import agreement, circuit, roc, sizes
from analyses.plots.composition import composition, wiring
from analyses.plots.heads import bars, histogram, lines, paired_bars, scatter, shares
from analyses.plots.matrices import attention, eigenvalues, heatmap, role_legend
from analyses.plots.schematics import Step, arrows, chains, formula, steps, terms
from analyses.plots.tables import spelling_grid, token_table
from analyses.plots.text import text
from analyses.plots.training import (
    RUNS,
    WINDOW,
    head_points,
    loss_map,
    over_training,
    trajectory,
    window,
)

__all__ = [
    "CONTROL", "LAYERS", "ROLE_COLOURS", "RUNS", "TRAINED", "WINDOW", "Step", "agreement", "arrows",
    "attention", "bars", "chains", "circuit", "composition", "eigenvalues", "formula", "grid",
    "head_points", "heatmap", "histogram", "lines", "literal", "loss_map", "over_training",
    "paired_bars", "roc", "role_legend", "scatter", "shares", "show_token", "sizes",
    "spelling_grid", "steps", "terms", "text", "token_table", "trajectory", "window", "wiring",
]  # fmt: skip
