"""What a figure function returns: the picture, what to see in it, and whether it is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import attention
from circuits.model import GPT


class LeftOut(ValueError):
    """Why a figure says nothing about the model that was asked for: the report says so, and has not
    failed."""


@dataclass(frozen=True)
class Verdict:
    """Whether the paper's claim holds on this model, computed now; `says` puts our numbers beside
    the paper's."""

    holds: bool
    says: str


@dataclass(frozen=True)
class Drawing:
    """One figure of a paper, redrawn."""

    figure: Figure
    title: str
    source: str
    "Paper, section and URL."
    caption: str
    verdict: Verdict
    html: str = ""
    "A table in HTML that the report shows under the picture."
    pages: Mapping[str, str] = field(default_factory=dict)
    "Whole HTML documents that lie beside the report, by file name; `html` may link to them."


def figure_of(ax: Axes) -> Figure:
    """The figure that these Axes are part of; ValueError if they are part of none."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("these Axes belong to no figure")
    return figure


def require_layers(model: GPT, least: int, what: str) -> None:
    """ValueError for a model with fewer than `least` layers, which `what` need."""
    if model.cfg.n_layers < least:
        raise ValueError(
            f"{what} need {least} layer{'s' * (least > 1)} or more, this model has "
            f"{model.cfg.n_layers}"
        )


def patterns_by_role(model: GPT, tokens: Int[Tensor, "batch pos"]) -> tuple[Figure, DataArray]:
    """Value-weighted patterns of all heads on the first row, framed by what each head is; and the
    roles, (layer, head)."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens[:1], names_filter=attention.is_pattern_or_value)
    layers = range(model.cfg.n_layers)
    weighted = [attention.value_weighted(cache["pattern", i], cache["v", i])[0] for i in layers]
    roles = attention.taxonomy(model).role
    axes = plots.attention(
        torch.cat(weighted),
        titles=[str(label) for label in roles.label.values.ravel()],
        colours=[plots.ROLE_COLOURS[str(role)] for role in roles.values.ravel()],
        columns=model.cfg.n_heads,
    )
    plots.role_legend(axes, roles)
    return figure_of(axes[0, 0]), roles


FRAMEWORK = "https://transformer-circuits.pub/2021/framework/index.html"
INDUCTION = (
    "https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html"
)
