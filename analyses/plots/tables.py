"""Tables of tokens as figures."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from pandas import DataFrame

from analyses.plots.canvas import show_token


def skip_trigrams(table: DataFrame) -> Figure:
    """A table of `analyses.skip_trigrams` as a figure, its out tokens shaded by `own_score`."""
    figure, ax = plt.subplots(figsize=(10.5, 0.3 * len(table) + 0.5), layout="constrained")
    ax.axis("off")
    heading = ["head", "source", "destination tokens (top QK)", "out tokens (top OV)"]
    cells = [
        [head, show_token(source), _row(destinations), _row(outs)]
        for head, source, destinations, outs in zip(
            table["head"], table["source"], table["destinations"], table["outs"], strict=True
        )
    ]
    shown = ax.table(
        cells,
        colLabels=heading,
        colWidths=[0.06, 0.14, 0.4, 0.4],
        cellLoc="left",
        bbox=Bbox.unit(),
    )
    shown.auto_set_font_size(False)
    shown.set_fontsize(9)
    for (row, column), cell in shown.get_celld().items():
        cell.set_edgecolor("0.8")
        cell.PAD = 0.02
        if row > 0 and column == 3:
            strength = min(max(float(table["own_score"].iloc[row - 1]) / 20, 0.0), 1.0)
            cell.set_facecolor(plt.get_cmap("Blues")(0.6 * strength))
    return figure


def _row(pairs: list[tuple[str, float]]) -> str:
    return "   ".join(show_token(token) for token, _ in pairs)
