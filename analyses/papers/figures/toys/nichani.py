"""Nichani et al. 2024: a first layer whose attention is the causal graph."""

from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.labelled import to_numpy
from analyses.papers.figures.record import Finding, Picture, toy_figure
from analyses.papers.toys import nichani
from circuits.data import CausalGraph, random_parents

SHARE = 0.6
"The largest share of the loss over Bayes that a first layer may leave of the loss without it."


@toy_figure(
    "induction/causal-graph",
    "Attention that becomes the causal graph",
    "Nichani et al. 2024, How Transformers Learn Causal Structure",
    "the first layer becomes the graph, A2 matches and W copies",
    url="https://arxiv.org/abs/2402.14735",
)
def causal_graph(seed: int = 0, *, steps: int = 1200, n_ctx: int = 10) -> Finding:
    """Chains along a random graph. The claim: the attention of the first layer becomes the graph,
    the second layer matches the tokens that the first hands over, and W raises the token that was
    found."""
    data = CausalGraph(random_parents(n_ctx, seed=seed + 3), 5, seed=10 * seed)
    model, control = nichani.Disentangled(5, n_ctx), nichani.Disentangled(5, n_ctx)
    ours = nichani.learn(model, data, steps)
    without = nichani.learn(control, data, steps, first_layer=False)
    end, left = (float(run.sel(what="loss")[-1]) for run in (ours, without))
    found, start = (float(ours.sel(what="parents")[step]) for step in (-1, 0))
    attended = ours.sel(what="attention").values
    matched, said = _diagonal(model.matching), _diagonal(model.saying)

    def picture() -> Picture:
        figure, axes = plots.grid(1, 4, (3.6, 3.2))
        ax = axes[0, 0]
        for run, name, colour in ((ours, "both layers", plots.TRAINED),
                                  (without, "$A^{(1)}$ kept at 0", plots.CONTROL)):  # fmt: skip
            ax.plot(run.step, run.sel(what="loss"), color=colour, label=name)
        ax.axhline(0, color="0.3", ls="--", lw=0.8, label="Bayes")
        ax.set(title="loss", xlabel="step", ylabel="over Bayes (nats)", ylim=(-0.02, None))
        ax.legend(frameon=False, fontsize=8)
        seen = DataArray(to_numpy(model.positions), dims=("position", "attends_to"),
                         attrs={"bounds": (0.0, 1.0), "long_name": "attention"})  # fmt: skip
        plots.heatmap(seen, axes[0, 1], "layer 1 by position")
        edges = [(parent, i) for i, parent in enumerate(data.parents[:-1]) if parent is not None]
        circles = {"s": 60, "facecolors": "none", "edgecolors": "#D55E00", "lw": 1.4}
        axes[0, 1].scatter(*zip(*edges, strict=True), **circles)
        handed = ("last token", "token handed over")
        _block(model.matching, handed, "$A^{(2)}$, matching", axes[0, 2])
        _block(model.saying, ("token found", "logit"), "$W$, saying", axes[0, 3])
        return figure

    return Finding(
        found == 1 and matched == said == 1 and end <= SHARE * left,
        f"layer 1 attends most to the parent at {found:.0%} of the positions that have one "
        f"({start:.0%} before training; attention to it {attended[-1]:.2f}, before "
        f"{attended[0]:.2f}), the diagonal is largest in {matched:.0%} of the rows of A2 and "
        f"{said:.0%} of W; loss over Bayes {end:.3f} nats, {left:.3f} without the first layer "
        f"(wanted at most {SHARE:.0%} of it)",
        "First panel: the loss under the true odds, less the loss of a predictor that knows the "
        "graph and counts along it (Bayes). Second: the attention of layer 1 by position alone; "
        "circles: the parent of each position (the last position has none). Third: the block of A2 "
        "by which the last token scores positions by the token that layer 1 handed to them. "
        "Fourth: the block of W from the token of the found positions to the logits. Every row has "
        f"a chain of its own; the graph over {n_ctx} positions is the same in all rows. The test: "
        "layer 1 attends most to the parent at every position that has one; the diagonal is the "
        "largest entry of every row of both blocks; and the loss over Bayes is at most "
        f"{SHARE:.0%} of the loss without a first layer.",
        picture,
    )


def _block(block: Tensor, dims: tuple[str, str], name: str, ax: Axes) -> None:
    values = to_numpy(block)
    limit = float(abs(values).max())
    attrs = {"long_name": "weight", "bounds": (-limit, limit)}
    plots.heatmap(DataArray(values, dims=dims, attrs=attrs), ax, name)


def _diagonal(block: Tensor) -> float:
    """The share of rows whose largest entry is on the diagonal and above 0."""
    values = block.detach()
    own = values.argmax(-1) == values.new_tensor(range(len(values)))
    return float((own & (values.diag() > 0)).float().mean())
