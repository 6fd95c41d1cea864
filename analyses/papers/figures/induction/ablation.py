"""Induction heads, Argument 3: what is lost with each head (O11, A5)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from xarray import DataArray

from analyses import plots
from analyses.causal import ablation
from analyses.history import dynamics
from analyses.history.dynamics import PhaseChange
from analyses.labelled import to_numpy
from analyses.papers.figures import panels
from analyses.papers.figures.drawing import INDUCTION, Drawing, LeftOut, Verdict
from analyses.papers.figures.induction.tokens import matches
from analyses.papers.figures.runs import Run, judged, runs
from analyses.prompts import passages
from circuits.io import load

AFTER = 30
"Records from the end of training that verdicts average over."
RESAMPLES = 2000


def of_the_change(names: Sequence[str]) -> Drawing:
    """O11: what is lost with each head of how token losses changed in the window, all patterns held
    where they were. Ablating an induction head undoes the change."""
    return _of_the_change(names, "pattern-preserving")


def of_the_change_in_full(names: Sequence[str]) -> Drawing:
    """A5: O11 with patterns free. Now what previous-token heads do for induction is lost too."""
    return _of_the_change(names, "full")


def _of_the_change(names: Sequence[str], kind: str) -> Drawing:
    of, full = runs(names), kind == "full"

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        change = dynamics.attribution(run.history, *at[:2]).sel(ablation=kind)
        found = _by_role(run, change)
        lost = found["induction"]
        said = [f"induction {_listed(lost)}", f"previous token {_listed(found['previous token'])}",
                f"others {_range(found['-'])}"]  # fmt: skip
        undone = [min(value, 0.0) for role in found.values() for value in role.values()]
        share = sum(min(value, 0.0) for value in lost.values()) / min(sum(undone), -1e-9)
        if lost:
            said.append(f"{share:.0%} of what all heads undo is by induction heads")
        passes = bool(lost) and max(lost.values()) < -0.01
        early = {name: value for name, value in found["previous token"].items()
                 if name.startswith("L0") and run.cfg.n_layers > 1}  # fmt: skip
        if full:
            passes = passes and all(value < -0.1 for value in early.values())
        else:
            passes = passes and all(abs(value) < 0.05 for value in early.values())
        return passes, ", ".join(said)

    figure = panels.row(of, lambda run, ax: panels.along(run, ax, kind))
    _roles(figure)
    then = (
        "Patterns after the head are free, so that a previous-token head takes with it what later "
        "heads would have found; a head of layer 0 must lose more than 0.1."
        if full
        else "All patterns are held where they were, so that a previous-token head of layer 0, "
        "which works by where later heads look, must lose less than 0.05."
    )
    return Drawing(
        figure,
        f"What is lost with each head, {kind} ablation",
        f"Induction heads, Argument 3 ({'A5' if full else 'O11'}), {INDUCTION}",
        "What the head's ablation adds to the losses of 2,048 tokens, along how these losses "
        "changed in the window (a unit vector): below 0, the change is undone. Every induction "
        f"head must be below -0.01 at the end of training. {then} Orange band: the window.",
        judged(
            "ablating induction heads undoes the change, "
            + (
                "and so does ablating the previous-token heads they are made with"
                if full
                else "ablating previous-token heads does not, with patterns held"
            ),
            of,
            test,
        ),
    )


def of_the_score(names: Sequence[str]) -> Drawing:
    """O11, second view: by how much the in-context score rises without each head. Induction heads
    carry it; without most others it gets better."""
    of = runs(names)

    def test(run: Run, at: PhaseChange) -> tuple[bool, str]:
        rise = run.history.ablated_in_context.sel(ablation="pattern-preserving")
        found = _by_role(run, rise)
        ours, rest = found["induction"], {**found["previous token"], **found["-"]}
        total = sum(ours.values())
        passes = bool(ours) and min(ours.values()) > 0 and total > 0.1
        return passes, f"induction {_listed(ours)}, others {_range(rest)}"

    figure, axes = plots.grid(2, len(of), (2.5, 1.9))
    for kind, line in zip(ablation.KINDS, axes[::-1], strict=True):
        for run, ax in zip(of, line, strict=True):
            panels.ablated_score(run, ax, kind)
        panels.same_scale(line)
        line[0].set_ylabel(f"{kind}\nrise of score (nats)")
    for run, ax in zip(of, axes[0], strict=True):
        ax.set(title=run.name, xlabel="")
    _roles(figure)
    return Drawing(
        figure,
        "What each head is worth to the in-context score",
        f"Induction heads, Argument 3 (O11), {INDUCTION}",
        "Smoothed. Above 0: without the head less is learned from the context. Above, patterns are "
        "held; below, they are free. The verdict is about the former, at the end of training: "
        "every induction head must be above 0, and all together above 0.1.",
        judged("in-context learning is lost with induction heads, and with few others", of, test),
    )


def on_text(names: Sequence[str]) -> Drawing:
    """O11's sign test on passages of ours, with intervals: without an induction head, right repeats
    get worse than other tokens do."""
    of = [run for run in runs(names) if run.cfg.n_layers]
    figure, axes = plots.grid(1, max(len(of), 1), (max(2.5, 4.6 / max(len(of), 1)), 2.8))
    says, holds = [], any(run.able for run in of)
    for run, ax in zip(of, axes[0], strict=False):
        rise = rise_on_repeats(run.name)
        low, high = intervals(rise)
        roles = dynamics.roles(run.history).values
        _bars(rise, (low, high), run.role_colours, ax)
        ax.set_title(run.name, fontsize=9)
        preserving = np.s_[..., 1]
        ours = roles == "induction"
        signs = bool(ours.any()) and bool((low[preserving][ours] > 0).all())
        early = (roles == "previous token") & (np.arange(len(roles)) + 1 < len(roles))[:, None]
        free = bool((high[preserving][early] < 0.5 * low[..., 0][early]).all())
        holds = holds and (signs and free) == run.able
        named = [
            (str(run.history.label.values[at]), at) for at in zip(*ours.nonzero(), strict=True)
        ]
        told = [f"{label} {low[at][1]:+.2f} to {high[at][1]:+.2f}" for label, at in named]
        told += [f"{run.history.label.values[at]} {low[at][1]:+.2f} to {high[at][1]:+.2f} with "
                 f"patterns held and {low[at][0]:+.2f} to {high[at][0]:+.2f} in full"
                 for at in zip(*early.nonzero(), strict=True)]  # fmt: skip
        says.append(f"in {run.name}: {', '.join(told) or 'no induction head'}")
    panels.same_scale(axes[0])
    _roles(figure)
    return Drawing(
        figure,
        "The sign test on text, with intervals",
        f"Induction heads, Argument 3 (O11, A5), {INDUCTION}",
        "Rise of the loss without the head on tokens that induction predicts rightly, less that on "
        "all others, in eight passages of ours at the end of training; bars full ablation, points "
        "with patterns held, both with 95% bootstrap intervals over passages. The histories keep "
        "means over tokens, so intervals over training cannot be had from them.",
        Verdict(bool(holds), "paper: ablating induction heads undoes in-context learning, ablating "
                "previous-token heads does so only through patterns; here " + "; ".join(says)),
    )  # fmt: skip


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


def intervals(
    rise: DataArray, seed: int = 0
) -> tuple[Float[np.ndarray, "layer head ablation"], Float[np.ndarray, "layer head ablation"]]:
    """Ends of 95% bootstrap intervals of the mean over passages."""
    n = rise.sizes["passage"]
    drawn = np.random.default_rng(seed).integers(n, size=(RESAMPLES, n))
    means = rise.values[..., drawn].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975], axis=-1)
    return low, high


def _bars(
    rise: DataArray, ends: tuple[np.ndarray, np.ndarray], colours: Sequence[str], ax: Axes
) -> None:
    mean = rise.mean("passage").values.reshape(-1, 2)
    low, high = (end.reshape(-1, 2) for end in ends)
    at = np.arange(len(mean))
    for column, shift in ((0, 0.0), (1, 0.25)):
        error = np.stack([mean[:, column] - low[:, column], high[:, column] - mean[:, column]])
        if column == 0:
            ax.bar(at, mean[:, 0], 0.8, color=colours, alpha=0.35)
        else:
            ax.plot(at + shift, mean[:, 1], "o", color="0.1", ms=4)
        ax.errorbar(at + shift, mean[:, column], error, fmt="none", color="0.1", lw=1, capsize=2)
    n_heads = rise.sizes["head"]
    labels = [f"L{i // n_heads}H{i % n_heads}" for i in at]
    ax.set_xticks(at, labels, rotation=90, fontsize=8)
    ax.axhline(0, color="0.5", lw=0.6)
    ax.set_ylabel("rise of loss (nats)")
    ax.spines[["top", "right"]].set_visible(False)


def _by_role(run: Run, values: DataArray) -> dict[str, dict[str, float]]:
    """The mean of each head over the end of training, by role and label."""
    end = values.isel(step=slice(-AFTER, None)).mean("step")
    found: dict[str, dict[str, float]] = {"induction": {}, "previous token": {}, "-": {}}
    roles = dynamics.roles(run.history)
    for label, role, value in zip(*(x.values.flat for x in (roles.label, roles, end)), strict=True):
        found[str(role)][str(label)] = float(value)
    return found


def _listed(values: dict[str, float]) -> str:
    return " ".join(f"{label} {value:+.2f}" for label, value in values.items()) or "none"


def _range(values: dict[str, float]) -> str:
    return f"{min(values.values()):+.2f} to {max(values.values()):+.2f}" if values else "none"


def _roles(figure: Figure) -> None:
    colours = {"induction": "induction", "previous token": "previous token", "-": "other"}
    handles = [figure.axes[0].plot([], [], color=plots.ROLE_COLOURS[role], lw=2, label=said)[0]
               for role, said in colours.items()]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
