"""Induction heads, Argument 4: pattern matching on lines that share no word (O15)."""

import numpy as np
from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots
from analyses.labelled import to_numpy
from analyses.papers.figures.record import Finding, Picture, toy_figure
from analyses.papers.toys import pattern_matching as toy
from circuits.data import CategoryLines
from circuits.model import GPT

PAPER = 0.65
"The share of a head's attention on the right category in the paper."
LOOKS = 0.1
"The least attention to earlier labels of a head that is judged."
SUCCEEDS, FAILS = 0.85, 0.4
"The share of right labels: at least this for three layers, at most this for one layer."
NEAR = 0.1
"The largest share above chance that an untrained head may have."


@toy_figure(
    "induction/pattern-matching",
    "Pattern matching: lines alike in kind",
    "Induction heads, Argument 4 (O15)",
    f'about {PAPER:.0%} of the attention of ":" is on the right category',
)
def pattern_matching(seed: int = 0, *, steps: int = 250) -> Finding:
    """From ":" a head attends to the labels of earlier lines of the same category, which share no
    word with its own line. The control is a model of one layer."""
    data, test = toy.lines(fixed=0.5, seed=10 * seed), toy.lines(seed=10 * seed + 2)
    model, control = (toy.transformer(data, n_layers=n, seed=seed) for n in (3, 1))
    before = toy.category_attention(model, test)
    ours, one = toy.learn(model, data, steps), toy.learn(control, data, steps)
    score = toy.category_attention(model, test)
    asked = score.where(score.looks >= LOOKS)
    at = np.unravel_index(asked.fillna(-1).values.argmax(), asked.shape)
    best, name, looks = float(score[at]), str(score.label[at].item()), float(score.looks[at])
    end, left = (float(run.sel(what="accuracy")[-1]) for run in (ours, one))
    chance, untrained = score.attrs["chance"], float(before.max())

    def picture() -> Picture:
        figure, axes = plots.grid(1, 3, (4.6, 3.6))
        ax = axes[0, 0]
        for run, label, colour in ((ours, "three layers", plots.TRAINED),
                                   (one, "one layer", plots.CONTROL)):  # fmt: skip
            ax.plot(run.step, run.sel(what="accuracy"), color=colour, label=label)
        ax.axhline(0.25, color="0.3", ls="--", lw=0.8, label="a label at random")
        ax.set(title="labels right", xlabel="step", ylabel="share", ylim=(0, 1.03))
        ax.legend(frameon=False, fontsize=8, loc="upper left")
        plots.bars(asked, axes[0, 1], control=before)
        axes[0, 1].legend(frameon=False, fontsize=8, ncols=2, loc="upper left")
        _lines_attended(model, test, int(at[0]), int(at[1]), axes[0, 2], name)
        return figure

    return Finding(
        best >= PAPER and end >= SUCCEEDS and left <= FAILS and untrained <= chance + NEAR,
        f"{best:.0%} of the attention of {name} to earlier labels, which get {looks:.0%} of its "
        f"attention, is on the same category (wanted {PAPER:.0%}; equal attention {chance:.0%}; "
        f"best untrained head {untrained:.0%}, at most {chance + NEAR:.0%}); {end:.2f} of the "
        f"labels are right with three layers (wanted {SUCCEEDS}), {left:.2f} with one (at most "
        f"{FAILS})",
        "Left: the share of labels that the model guesses right, over lines whose category came "
        'before. Middle: the share of the attention from ":" to earlier labels that falls on the '
        "same category, of the trained model (bars) and of the untrained one; dashed: equal "
        "attention; no bar: the head gives earlier labels less than "
        f"{LOOKS:.0%} of its attention. Right: the best head on one row; circles: labels of the "
        f"same category. A row has {test.lines} lines, and no word comes twice. Labels are "
        "shuffled, so only earlier lines tell the label of a category. The model was trained on "
        "labels alone; half of its rows had the paper's fixed labels. The test: the share of the "
        "best head, the right labels of both models and the best untrained head are within the "
        "bounds written beside the numbers.",
        picture,
    )


def _lines_attended(
    model: GPT, data: CategoryLines, layer: int, head: int, ax: Axes, name: str
) -> None:
    """The attention of one head from the ":" of every line to the label of every earlier line."""
    rows, each = data.batch(0, 1), data.PER_LINE
    words = toy.words(rows[0])
    lines = [f"{words[i]} {words[i + 1]}:" for i in range(0, len(words), each)]
    pattern = toy.label_patterns(model, data, rows)[layer][0, head]
    same = toy.same_category(data.categories(0, 1))[0]
    seen = DataArray(to_numpy(pattern), dims=("line", "label_of_line"),
                     attrs={"bounds": (0.0, 1.0), "long_name": "attention"})  # fmt: skip
    plots.heatmap(seen, ax, f'{name}, from ":" to labels')
    ax.set_yticks(range(len(lines)), lines, fontsize=8)
    ax.set_xticks(range(len(lines)), words[data.COLON_AT + 1 :: each])
    ax.set(xlabel="label of earlier line", ylabel="")
    at, to = same.nonzero(as_tuple=True)
    ax.scatter(to_numpy(to), to_numpy(at), s=80, facecolors="none", edgecolors="#D55E00", lw=1.4)
