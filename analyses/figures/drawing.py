"""What a figure function returns: the picture, what to see in it, and whether it is there."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from circuits.model import GPT


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


def at_initialisation(model: GPT, seed: int | None = None) -> GPT:
    """The same architecture before training, from the config's own seed or another: the control."""
    cfg = model.cfg if seed is None else replace(model.cfg, seed=seed)
    return GPT(cfg, model.tokenizer).to(model.W_E.dtype).eval()


def figure_of(ax: Axes) -> Figure:
    """The figure that these Axes are part of; ValueError if they are part of none."""
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("these Axes belong to no figure")
    return figure


FRAMEWORK = "https://transformer-circuits.pub/2021/framework/index.html"
INDUCTION = (
    "https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html"
)
