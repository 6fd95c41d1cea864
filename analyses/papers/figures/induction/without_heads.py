"""Induction heads, Argument 3: the final models without some heads, on text (O11, A5)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from torch import Tensor
from xarray import Dataset

from analyses import plots
from analyses.causal import ablation
from analyses.labelled import interval, to_numpy
from analyses.losses import early_and_late
from analyses.papers.figures import panels
from analyses.papers.figures.induction.ablation import with_roles
from analyses.papers.figures.induction.tokens import matches
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import Run, judged_each
from analyses.prompts import passages
from circuits.io import load
from circuits.model import GPT, components

WINDOWS = 250
"The number of held-out windows of text."
OTHERS = 32
"The number of tokens of a window that are read and that induction does not predict rightly."
Sets = dict[str, list[str]]
"Labels of heads that are ablated together, by the name of the set."


@history_figure(
    "induction/ablated-score",
    "The in-context score without induction heads",
    "Induction heads, Argument 3 (O11)",
    "in-context learning is lost with induction heads",
)
def of_the_score(of: Sequence[Run]) -> Finding:
    """The rise of the in-context score without all induction heads together. The claim: they carry
    it. Without a single one of them, the others may do its work."""
    found = {run.name: score_without(load(run.name), run.heads("induction"))
             for run in of if not lacks_text(run)}  # fmt: skip

    def test(run: Run) -> tuple[bool, str]:
        one = found[run.name]
        full, held = (one.sel(set="together", ablation=kind) for kind in ablation.KINDS)
        passes = float(one.score) < 0 and float(full.low) > 0
        passes = passes and float(full.mean_rise) > 0.5 * abs(float(one.score))
        alone = "".join(f", without {name} alone {one.mean_rise.sel(set=name)[0]:+.2f}"
                        for name in one.set.values[1:])  # fmt: skip
        return passes, (
            f"the score is {one.score:+.2f}, without all induction heads it rises by "
            f"{full.mean_rise:+.2f} ({full.low:+.2f} to {full.high:+.2f}), with patterns held by "
            f"{held.mean_rise:+.2f} ({held.low:+.2f} to {held.high:+.2f}){alone}"
        )

    def picture() -> Picture:
        figure, axes = plots.grid(2, len(of), (2.5, 2.1))
        for run, (above, below) in zip(of, axes.T, strict=True):
            panels.ablated_score(run, above)
            above.set_title(run.name, fontsize=9)
            _score_bars(found.get(run.name), below)
        for line in axes:
            panels.same_scale(line)
        return with_roles(figure)

    return Finding(
        *judged_each(of, lacks_text, test),
        "Above: the rise of the in-context score without each head over training, patterns held, "
        f"smoothed. Below: the rise at the end of training, on up to {WINDOWS} windows of held-out "
        "text. Bars: full ablation; points: patterns held; both with 95% intervals over windows; "
        "dashed: half the size of the score. The test: the score is below 0, and with full "
        "ablation of all induction heads together it rises by more than half of its size, with the "
        "interval above 0.",
        picture,
    )


def lacks_text(run: Run) -> str:
    """The thing that a run lacks to show the work of its induction heads on text."""
    if not run.heads("induction"):
        return "no induction head"
    return "" if load(run.name).tokenizer is not None else "no tokenizer"


def score_without(model: GPT, heads: Sequence[str]) -> Dataset:
    """The in-context score on held-out windows, and its rise without some heads, all together and
    each alone, (set, ablation), with the ends of the interval over windows."""
    rows = passages.held_out(model, min(192, model.cfg.n_ctx))[:WINDOWS]
    n = rows.shape[1] - 1
    places = torch.cat([torch.arange(n)[part] for part in early_and_late(n)])
    late = torch.arange(len(places)) >= len(places) // 2
    at = torch.cartesian_prod(torch.arange(len(rows)), places).unbind(-1)
    alone = {head: [head] for head in heads} if len(heads) > 1 else {}
    sets = {"together": list(heads), **alone}
    whole, without = (
        one.unflatten(-1, (len(rows), -1)) for one in losses_without(model, rows, sets, at)
    )
    score, others = (one[..., late].mean(-1) - one[..., ~late].mean(-1) for one in (whole, without))
    return _with_intervals(sets, others - score, float(score.mean()))


def losses_without(
    model: GPT, rows: Int[Tensor, "window pos"], sets: Sets, at: Sequence[Int[Tensor, "token"]]
) -> tuple[Float[Tensor, "token"], Float[Tensor, "set ablation token"]]:
    """`ablation.losses_without` for sets of labels, in double precision."""
    heads = [[components.head(model.cfg, name) for name in names] for names in sets.values()]
    whole, without = ablation.losses_without(model, rows, heads, at[0], at[1])
    return whole.double(), without.double()


def _with_intervals(
    sets: Sets, rise: Float[Tensor, "set ablation window"], score: float
) -> Dataset:
    each = rise.movedim(-1, 0)
    low, high = to_numpy(interval(each, torch.ones(len(each), 1, 1)))
    dims = ("set", "ablation")
    named = {"mean_rise": (dims, to_numpy(each.mean(0))), "low": (dims, low), "high": (dims, high)}
    coords = {"set": list(sets), "ablation": list(ablation.KINDS)}
    return Dataset({**named, "score": score}, coords)


def _score_bars(found: Dataset | None, ax: Axes) -> None:
    if found is None:
        panels.empty(ax, "no induction head")
        ax.set(ylim=(-1e-3, 1e-3))
        return
    _bars(found, [plots.ROLE_COLOURS["induction"]] * found.sizes["set"], ax)
    ax.axhline(0.5 * abs(float(found.score)), color="0.3", ls="--", lw=0.8)
    ax.set_ylabel("rise of score (nats)")


def _bars(found: Dataset, colours: Sequence[str], ax: Axes) -> None:
    """Draw full ablation as bars and pattern-preserving ablation as points, with intervals."""
    at, mean = np.arange(found.sizes["set"]), found.mean_rise.values
    ax.bar(at, mean[:, 0], 0.7, color=list(colours), alpha=0.35)
    ax.plot(at + 0.25, mean[:, 1], "o", color="0.1", ms=4)
    error = np.stack([mean - found.low.values, found.high.values - mean])
    for kind, shift in enumerate((0.0, 0.25)):
        ax.errorbar(at + shift, mean[:, kind], error[..., kind], fmt="none", color="0.1", lw=1,
                    capsize=2)  # fmt: skip
    ax.set_xticks(at, found.set.values.tolist(), rotation=90, fontsize=8)
    ax.axhline(0, color="0.5", lw=0.6)
    ax.spines[["top", "right"]].set_visible(False)


@history_figure(
    "induction/ablation-on-text",
    "The sign test on text, with intervals",
    "Induction heads, Argument 3 (O11, A5)",
    "ablating induction heads undoes in-context learning, ablating previous-token heads does so "
    "only through patterns",
)
def on_text(of: Sequence[Run]) -> Finding:
    """A sign test on held-out text, with intervals. The claim: without an induction head right
    repeats get worse by more than other tokens."""
    found = {run.name: rise_on_repeats(load(run.name), {head: [head] for head in _asked(run)})
             for run in of if not lacks_text(run)}  # fmt: skip

    def panel(run: Run, ax: Axes) -> None:
        if run.name not in found:
            panels.empty(ax, "no induction head")
            return
        named = dict(zip(run.roles.label.values.flat, run.role_colours, strict=True))
        _bars(found[run.name], [named[head] for head in found[run.name].set.values], ax)
        ax.set_ylabel("rise of loss (nats)")

    return Finding(
        *judged_each(of, lacks_text, lambda run: _signs(run, found[run.name])),
        "Each bar is a head at the end of training: the rise of the loss without it on tokens that "
        f"induction predicts rightly, less the rise on {OTHERS} other tokens of the window, in up "
        f"to {WINDOWS} windows of held-out text. Bars: full ablation; points: patterns held; both "
        "with 95% intervals over windows. Shown are induction heads, and previous-token and "
        "current-token heads before the last layer. The test: with patterns held, the interval of "
        "each induction head is above 0; for each previous-token head the upper end of this "
        "interval is below half of the lower end of the interval with full ablation. Current-token "
        "heads carry all tokens and are not judged.",
        lambda: with_roles(panels.row(of, panel, (2.5, 2.8))),
    )


def _asked(run: Run) -> list[str]:
    """The heads that are shown: induction heads, and heads of other roles before the last layer."""
    early = run.roles.layer < run.cfg.n_layers - 1
    shown = (run.roles == "induction") | (early & (run.roles != "-"))
    return run.roles.label.values[shown.transpose(*run.roles.dims).values].tolist()


def rise_on_repeats(model: GPT, sets: Sets, n: int | None = None) -> Dataset:
    """The rise of the loss without each set of heads on right repeats, less the rise on other
    tokens, in nats, (set, ablation), with the ends of the interval over windows. The windows are
    the first n of the held-out text, by default WINDOWS. Windows without right repeats are left
    out."""
    rows = passages.held_out(model, min(192, model.cfg.n_ctx))[: n or WINDOWS]
    right = matches(rows)[0]
    rows, right = rows[right.any(-1)], right[right.any(-1)]
    read = right | _some(~right)
    whole, without = losses_without(model, rows, sets, read.nonzero().unbind(-1))
    rise = torch.zeros(*without.shape[:2], *read.shape, dtype=torch.double)
    rise[..., read] = without - whole
    on, off = ((rise * kind).sum(-1) / kind.sum(-1) for kind in (right, read & ~right))
    return _with_intervals(sets, on - off, float("nan"))


def _some(where: Bool[Tensor, "window index"]) -> Bool[Tensor, "window index"]:
    """At most OTHERS random places of each row where `where` is true."""
    drawn = torch.rand(where.shape, generator=torch.Generator().manual_seed(0)) * where
    return (drawn >= drawn.topk(min(OTHERS, drawn.shape[1])).values[:, -1:]) & where


def _signs(run: Run, found: Dataset) -> tuple[bool, str]:
    """Whether the loss rises without each induction head with patterns held, and without each early
    previous-token head mainly with patterns free; and the intervals of these heads in words."""
    said, passes = [], True
    for role in ("induction", "previous token", "current token"):
        for label in [one for one in run.heads(role) if one in found.set]:
            full, held = (found.sel(set=label, ablation=kind) for kind in ablation.KINDS)
            words = f"{label} {held.low:+.2f} to {held.high:+.2f}"
            if role == "induction":
                passes = passes and float(held.low) > 0
            else:
                words += f" with patterns held and {full.low:+.2f} to {full.high:+.2f} in full"
            if role == "previous token":
                passes = passes and float(held.high) < 0.5 * float(full.low)
            said.append(f"{words} ({role})")
    return passes, ", ".join(said)
