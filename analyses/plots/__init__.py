"""DataArray -> matplotlib axes. Nothing is computed here but positions and colours.

Attention and scores keep the limits in `attrs["bounds"]`, signed quantities a diverging map centred
on 0. Every function draws into the Axes it is given, or makes one, and returns it.
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
