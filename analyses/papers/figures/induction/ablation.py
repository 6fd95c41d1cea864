"""Induction heads, Argument 3: what is lost with each head (O11, A5)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots
from analyses.causal import ablation
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from analyses.labelled import to_numpy
from analyses.papers.figures import panels
from analyses.papers.figures.induction.tokens import matches
from analyses.papers.figures.record import Finding, Picture, history_figure
from analyses.papers.figures.runs import LeftOut, Run, judged
from analyses.prompts import passages
from circuits.io import load

AFTER = 30
"The number of records from the end of training that verdicts average over."
RESAMPLES = 2000
COLOURED = {"induction": "induction", "previous token": "previous token", "-": "other"}


@history_figure(
    "induction/ablation",
    "What is lost with each head, pattern-preserving ablation",
    "Induction heads, Argument 3 (O11)",
    "ablating induction heads undoes the change, ablating previous-token heads does not, with "
    "patterns held",
)
def of_the_change(of: Sequence[Run]) -> Finding:
    """How much of the change of token losses in the window is lost with each head, all patterns
    held where they were. Ablating an induction head undoes the change."""
    return _of_the_change(
        of,
        "pattern-preserving",
        lambda lost: abs(lost) < 0.05,
        "All patterns are held where they were, so that a previous-token head of layer 0, which "
        "works by where later heads look, must lose less than 0.05.",
    )


@history_figure(
    "induction/full-ablation",
    "What is lost with each head, full ablation",
    "Induction heads, Argument 3 (A5)",
    "ablating induction heads undoes the change, and so does ablating the previous-token heads "
    "they are made with",
)
def of_the_change_in_full(of: Sequence[Run]) -> Finding:
    """The same with patterns free. Now what previous-token heads do for induction is lost too."""
    return _of_the_change(
        of,
        "full",
        lambda lost: lost < -0.1,
        "Patterns after the head are free, so that a previous-token head takes with it what later "
        "heads would have found; a head of layer 0 must lose more than 0.1.",
    )


def _of_the_change(
    of: Sequence[Run], kind: str, is_right: Callable[[float], bool], then: str
) -> Finding:
    """`is_right` says of what is lost with a previous-token head of an early layer whether it is
    what the claim says."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        change = dynamics.attribution(run.history, *at[:2]).sel(ablation=kind)
        found = _by_role(run, change)
        lost, previous = found["induction"], found["previous token"]
        said = [f"induction {_listed(lost)}", f"previous token {_listed(previous)}",
                f"others {_range(found['-'])}"]  # fmt: skip
        undone = [min(value, 0.0) for role in found.values() for value in role.values()]
        share = sum(min(value, 0.0) for value in lost.values()) / min(sum(undone), -1e-9)
        if lost:
            said.append(f"{share:.0%} of what all heads undo is by induction heads")
        early = [value for name, value in previous.items()
                 if name.startswith("L0") and run.cfg.n_layers > 1]  # fmt: skip
        passes = bool(lost) and max(lost.values()) < -0.01 and all(map(is_right, early))
        return passes, ", ".join(said)

    def picture() -> Picture:
        return _with_roles(panels.row(of, lambda run, ax: panels.along(run, ax, kind)))

    return Finding(
        *judged(of, test),
        "What the head's ablation adds to the losses of 2,048 tokens, along how these losses "
        "changed in the window (a unit vector): below 0, the change is undone. Every induction "
        f"head must be below -0.01 at the end of training. {then} Orange band: the window.",
        picture,
    )


@history_figure(
    "induction/ablated-score",
    "What each head is worth to the in-context score",
    "Induction heads, Argument 3 (O11)",
    "in-context learning is lost with induction heads, and with few others",
)
def of_the_score(of: Sequence[Run]) -> Finding:
    """By how much the in-context score rises without each head. Induction heads carry it; without
    most others it gets better."""

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        found = _by_role(run, run.history.ablated_in_context.sel(ablation="pattern-preserving"))
        ours, rest = found["induction"], {**found["previous token"], **found["-"]}
        passes = bool(ours) and min(ours.values()) > 0 and sum(ours.values()) > 0.1
        return passes, f"induction {_listed(ours)}, others {_range(rest)}"

    def picture() -> Picture:
        figure, axes = plots.grid(2, len(of), (2.5, 1.9))
        for kind, line in zip(ablation.KINDS, axes[::-1], strict=True):
            for run, ax in zip(of, line, strict=True):
                panels.ablated_score(run, ax, kind)
            panels.same_scale(line)
            line[0].set_ylabel(f"{kind}\nrise of score (nats)")
        for run, ax in zip(of, axes[0], strict=True):
            ax.set(title=run.name, xlabel="")
        return _with_roles(figure)

    return Finding(
        *judged(of, test),
        "Smoothed. Above 0: without the head less is learned from the context. Above, patterns are "
        "held; below, they are free. The verdict is about the former, at the end of training: "
        "every induction head must be above 0, and all together above 0.1.",
        picture,
    )


@history_figure(
    "induction/ablation-on-text",
    "The sign test on text, with intervals",
    "Induction heads, Argument 3 (O11, A5)",
    "ablating induction heads undoes in-context learning, ablating previous-token heads does so "
    "only through patterns",
)
def on_text(of: Sequence[Run]) -> Finding:
    """A sign test on passages of ours, with intervals: without an induction head, right repeats get
    worse than other tokens do."""
    of = [run for run in of if run.cfg.n_layers]
    rises = {run.name: rise_on_repeats(run.name) for run in of}
    told, holds = [], any(run.able for run in of)
    for run in of:
        passes, words = _signs(run, *intervals(rises[run.name]))
        holds = holds and passes == run.able
        told.append(f"in {run.name}: {words}")

    def picture() -> Picture:
        return _with_roles(panels.row(of, lambda run, ax: _bars(run, rises[run.name], ax),
                                      (2.5, 2.8)))  # fmt: skip

    return Finding(
        bool(holds),
        "; ".join(told),
        "Rise of the loss without the head on tokens that induction predicts rightly, less that on "
        "all others, in eight passages of ours at the end of training; bars full ablation, points "
        "with patterns held, both with 95% bootstrap intervals over passages. The histories keep "
        "means over tokens, so intervals over training cannot be had from them.",
        picture,
    )


def rise_on_repeats(name: str) -> DataArray:
    """Rise of the loss without each head on right repeats less that on other tokens, (layer, head,
    ablation, passage), in nats: a mean over the tokens of each passage of ours."""
    model = load(name)
    if model.tokenizer is None:
        raise LeftOut(f"{name} reads no text: it has no tokenizer")
    rows = passages.tokens(model)
    places = torch.ones_like(rows[:, 1:]).nonzero()
    whole, without = ablation.losses(model, rows, *places.unbind(-1))
    rise = (without - whole).double().reshape(*without.shape[:-1], *rows[:, 1:].shape)
    right = matches(rows)[0]
    on, off = ((rise * kind).sum(-1) / kind.sum(-1).clamp(min=1) for kind in (right, ~right))
    dims = ("layer", "head", "ablation", "passage")
    return DataArray(to_numpy(on - off), dims=dims, coords={"ablation": list(ablation.KINDS)})


Ends = Float[np.ndarray, "layer head ablation"]


def intervals(rise: DataArray, seed: int = 0) -> tuple[Ends, Ends]:
    """Ends of 95% bootstrap intervals of the mean over passages."""
    n = rise.sizes["passage"]
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    means = rise.values[..., drawn].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975], axis=-1)
    return low, high


def _signs(run: Run, low: Ends, high: Ends) -> tuple[bool, str]:
    """Whether the loss rises without each induction head with patterns held, and without each early
    previous-token head only with patterns free; and the intervals of these heads."""
    roles, labels = dynamics.roles(run.history).values, run.history.label.values
    ours = roles == "induction"
    early = (roles == "previous token") & (np.arange(len(roles)) + 1 < len(roles))[:, None]
    signs = bool(ours.any()) and bool((low[..., 1][ours] > 0).all())
    free = bool((high[..., 1][early] < 0.5 * low[..., 0][early]).all())

    def said(at: tuple[np.intp, ...], kind: int) -> str:
        return f"{low[at][kind]:+.2f} to {high[at][kind]:+.2f}"

    told = [f"{labels[at]} {said(at, 1)}" for at in zip(*ours.nonzero(), strict=True)]
    told += [f"{labels[at]} {said(at, 1)} with patterns held and {said(at, 0)} in full"
             for at in zip(*early.nonzero(), strict=True)]  # fmt: skip
    return signs and free, ", ".join(told) or "no induction head"


def _bars(run: Run, rise: DataArray, ax: Axes) -> None:
    mean, low, high = (end.reshape(-1, 2)
                       for end in (rise.mean("passage").values, *intervals(rise)))  # fmt: skip
    at = np.arange(len(mean))
    ax.bar(at, mean[:, 0], 0.8, color=run.role_colours, alpha=0.35)
    ax.plot(at + 0.25, mean[:, 1], "o", color="0.1", ms=4)
    for kind, shift in enumerate((0.0, 0.25)):
        error = np.stack([mean - low, high - mean])[..., kind]
        ax.errorbar(at + shift, mean[:, kind], error, fmt="none", color="0.1", lw=1, capsize=2)
    ax.set_xticks(at, run.history.label.values.ravel(), rotation=90, fontsize=8)
    ax.axhline(0, color="0.5", lw=0.6)
    ax.set_ylabel("rise of loss (nats)")
    ax.spines[["top", "right"]].set_visible(False)


def _by_role(run: Run, values: DataArray) -> dict[str, dict[str, float]]:
    """The mean of each head over the end of training, by role and label."""
    end = values.isel(step=slice(-AFTER, None)).mean("step")
    found: dict[str, dict[str, float]] = {role: {} for role in COLOURED}
    roles = dynamics.roles(run.history)
    for label, role, value in zip(*(x.values.flat for x in (roles.label, roles, end)), strict=True):
        found[str(role)][str(label)] = float(value)
    return found


def _listed(values: dict[str, float]) -> str:
    return " ".join(f"{label} {value:+.2f}" for label, value in values.items()) or "none"


def _range(values: dict[str, float]) -> str:
    return f"{min(values.values()):+.2f} to {max(values.values()):+.2f}" if values else "none"


def _with_roles(figure: Picture) -> Picture:
    """The picture with a legend of the roles of heads."""
    handles = [figure.axes[0].plot([], [], color=plots.ROLE_COLOURS[role], lw=2, label=said)[0]
               for role, said in COLOURED.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure
