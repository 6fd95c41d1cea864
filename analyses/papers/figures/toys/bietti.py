"""Bietti et al. 2023: in-context accuracy and the recall of memories while a toy learns."""

from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots
from analyses.heads.patterns import capture
from analyses.papers.figures.record import Finding, Picture, toy_figure
from analyses.papers.toys import bietti

SUCCEEDS, FAILS, RECALLED = 0.85, 0.7, 0.5
"The least accuracy of two layers, the largest of one; a memory is there above this recall."
COLOURS = {"W_O2": "#0072B2", "W_K2": "#D55E00", "W_K1": "#009E73"}
NAMES = {"W_O2": "$W_O^2$", "W_K2": "$W_K^2$", "W_K1": "$W_K^1$"}


@toy_figure(
    "induction/triggers",
    "Memories that form from the top down",
    "Bietti et al. 2023, Birth of a Transformer",
    "two layers learn it, one cannot, and W_O2 is learned before W_K2 before W_K1",
    url="https://arxiv.org/abs/2306.00802",
)
def triggers(seed: int = 0, *, steps: int = 200) -> Finding:
    """Letters with triggers. The claim: two layers learn to repeat the letter that followed a
    trigger, one layer does not, and the memories form from the top down."""
    data = bietti.triggers(seed=10 * seed)
    model, control = (bietti.simplified(data, n_layers=n, seed=seed) for n in (2, 1))
    ours, one = bietti.learn(model, data, steps), bietti.learn(control, data, steps)
    end, least = (float(run.sel(what="accuracy")[-1]) for run in (ours, one))
    formed = {what: formation(ours.sel(what=what)) for what in NAMES}
    order = ", ".join(f"{what} {'never' if at is None else f'at step {at}'}"
                      for what, at in formed.items())  # fmt: skip
    known = [at for at in formed.values() if at is not None]
    top_down = len(known) == 3 and known[0] <= known[1] <= known[2] and known[0] < known[2]

    def picture() -> Picture:
        figure, axes = plots.grid(1, 4, (3.4, 3.2))
        _over_steps(ours.sel(what="accuracy"), axes[0, 0], "two layers", plots.TRAINED)
        _over_steps(one.sel(what="accuracy"), axes[0, 0], "one layer", plots.CONTROL)
        axes[0, 0].set(title="in-context accuracy", ylabel="share right")
        for what, name in NAMES.items():
            _over_steps(ours.sel(what=what), axes[0, 1], name, COLOURS[what])
        axes[0, 1].axhline(RECALLED, color="0.5", ls=":", lw=0.8)
        axes[0, 1].set(title="recall of each memory", ylabel="share of pairs")
        seen = capture(model, data.batch(steps, 1)[:, :-1]).sel(view="attention", head=0)
        for layer, ax in enumerate(axes[0, 2:]):
            named = seen.sel(layer=layer).rename(dest="destination", src="source")
            plots.heatmap(named, ax, f"attention, layer {layer + 1}", bar=layer == 1)
        return figure

    return Finding(
        end >= SUCCEEDS and least <= FAILS and top_down,
        f"after {steps} steps, accuracy {end:.2f} with two layers (wanted {SUCCEEDS}), {least:.2f} "
        f"with one (at most {FAILS}), and recall stays over {RECALLED} by {order}",
        "First panel: the in-context accuracy, which is the accuracy on successors of triggers "
        "that occurred before in the row. Second: the share of its pairs that each memory recalls. "
        "Right: patterns of the two layers on a row that was not trained on. Rows are "
        f"{data.length - 1} letters with the frequencies of our own prose; in a row each of the 5 "
        "most frequent letters has one successor. If a successor is itself a trigger, rows run in "
        "short cycles, which one layer can guess in part. The model is the paper's simplified "
        "model: embeddings are random and frozen, W_Q is the identity, and W_K1, W_K2 and W_O2 are "
        "learned from 0, by Adam here, by SGD in the paper. The test: the accuracy of two layers "
        f"ends at {SUCCEEDS} or more and the accuracy of one layer at {FAILS} or less; the recall "
        f"of W_O2, W_K2 and W_K1 comes to stay above {RECALLED} in this order, and W_O2 is earlier "
        "than W_K1.",
        picture,
    )


def formation(recall: DataArray) -> int | None:
    """The first step after which a recall stays over RECALLED; None if it ends below."""
    below = recall.step.values[(recall <= RECALLED).values]
    after = recall.step.values if len(below) == 0 else recall.step.values[recall.step > below[-1]]
    return int(after[0]) if len(after) else None


def _over_steps(run: DataArray, ax: Axes, name: str, colour: str) -> None:
    ax.plot(run.step, run, color=colour, label=name)
    ax.set(xlabel="step", ylim=(0, 1.03))
    ax.legend(frameon=False, fontsize=8)
