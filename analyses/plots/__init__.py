"""DataArray -> matplotlib axes. Nothing is computed here but positions and colours.

Attention and scores keep the limits in `attrs["bounds"]`, signed quantities a diverging map centred
on 0. Every function draws into the Axes it is given, or makes one, and returns it.
"""

from analyses.plots.canvas import CONTROL, ROLE_COLOURS, TRAINED, grid, show_token
from analyses.plots.composition import composition, wiring
from analyses.plots.heads import bars, histogram, lines, scatter
from analyses.plots.matrices import attention, eigenvalues, heatmap
from analyses.plots.tables import skip_trigrams

__all__ = [
    "CONTROL",
    "ROLE_COLOURS",
    "TRAINED",
    "attention",
    "bars",
    "composition",
    "eigenvalues",
    "grid",
    "heatmap",
    "histogram",
    "lines",
    "scatter",
    "show_token",
    "skip_trigrams",
    "wiring",
]
