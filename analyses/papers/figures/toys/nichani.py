"""Nichani et al. 2024: a first layer whose attention is the causal graph."""

from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.labelled import to_numpy
from analyses.papers.figures.drawing import Drawing, Verdict
from analyses.papers.toys import nichani
from circuits.data import CausalGraph, random_parents

URL = "https://arxiv.org/abs/2402.14735"
SHARE = 0.6
"Of the loss over Bayes that is left without a first layer, what may be left with it."


def causal_graph(seed: int = 0, *, steps: int = 1200, n_ctx: int = 10) -> Drawing:
    """Chains along a random graph: the first layer's attention becomes the graph, the second
    layer matches what it hands over, and W says the token that was found."""
    data = CausalGraph(random_parents(n_ctx, seed=seed + 3), 5, seed=10 * seed)
    model, control = nichani.Disentangled(5, n_ctx), nichani.Disentangled(5, n_ctx)
    ours = nichani.learn(model, data, steps)
    without = nichani.learn(control, data, steps, first_layer=False)
    figure, axes = plots.grid(1, 4, (3.6, 3.2))
    ax = axes[0, 0]
    for run, name, colour in ((ours, "both layers", plots.TRAINED),
                              (without, "$A^{(1)}$ kept at 0", plots.CONTROL)):  # fmt: skip
        ax.plot(run.step, run.sel(what="loss"), color=colour, label=name)
    ax.axhline(0, color="0.3", ls="--", lw=0.8, label="Bayes")
    ax.set(title="loss", xlabel="step", ylabel="over Bayes (nats)", ylim=(-0.02, None))
    ax.legend(frameon=False, fontsize=8)
    _graph(model.positions, data, axes[0, 1])
    _block(model.matching, ("last token", "token handed over"), "$A^{(2)}$, matching", axes[0, 2])
    _block(model.saying, ("token found", "logit"), "$W$, saying", axes[0, 3])
    end, left = (float(run.sel(what="loss")[-1]) for run in (ours, without))
    found, start = (float(ours.sel(what="parents")[step]) for step in (-1, 0))
    attended = ours.sel(what="attention").values
    matched, said = _diagonal(model.matching), _diagonal(model.saying)
    says = (
        f"paper: the first layer becomes the graph, A2 matches and W copies; here layer 1 attends "
        f"most to the parent at {found:.0%} of the positions that have one ({start:.0%} before "
        f"training; attention to it {attended[-1]:.2f}, before {attended[0]:.2f}), the diagonal is "
        f"largest in {matched:.0%} of the rows of A2 and {said:.0%} of W; loss over Bayes "
        f"{end:.3f} nats, {left:.3f} without the first layer (wanted at most {SHARE:.0%} of it)"
    )
    return Drawing(
        figure,
        "Attention that becomes the causal graph",
        f"Nichani et al. 2024, How Transformers Learn Causal Structure, {URL}",
        f"Every row has a chain of its own; who is drawn from whom, over {n_ctx} positions, is the "
        "same in all (circles; the last position has no parent). Second panel: attention of layer "
        "1 by position alone. Third: the block of A2 by which the last token finds positions that "
        "were handed its like. Fourth: the block of W from their own token to logits. Loss under "
        "the true odds, less that of counts along the graph plus alpha, which "
        "training stops short of.",
        Verdict(found == 1 and matched == said == 1 and end <= SHARE * left, says),
    )


def _graph(pattern: Tensor, data: CausalGraph, ax: Axes) -> None:
    seen = DataArray(to_numpy(pattern), dims=("position", "attends_to"),
                     attrs={"bounds": (0.0, 1.0), "long_name": "attention"})  # fmt: skip
    plots.heatmap(seen, ax, "layer 1 by position")
    edges = [(parent, i) for i, parent in enumerate(data.parents[:-1]) if parent is not None]
    ax.scatter(*zip(*edges, strict=True), s=60, facecolors="none", edgecolors="#D55E00", lw=1.4)


def _block(block: Tensor, dims: tuple[str, str], name: str, ax: Axes) -> None:
    result = DataArray(to_numpy(block), dims=dims, attrs={"long_name": "weight"})
    limit = float(abs(result).max())
    result.attrs["bounds"] = (-limit, limit)
    plots.heatmap(result, ax, name)


def _diagonal(block: Tensor) -> float:
    """Share of rows whose largest entry is on the diagonal and above 0."""
    values = block.detach()
    return float(((values.argmax(-1) == values.new_tensor(range(len(values)))) &
                  (values.diag() > 0)).float().mean())  # fmt: skip
