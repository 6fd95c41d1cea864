"""Framework paper, "Transformer overview": how parts share the stream, and how a head moves
information through it (F4, F5)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from matplotlib.axes import Axes
from torch import Tensor
from xarray import DataArray, Dataset

from analyses import plots
from analyses.heads import attention, copying, masks
from analyses.labelled import to_numpy, words_of
from analyses.papers.figures.framework.samples import windows
from analyses.papers.figures.framework.sums import prompt
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from analyses.terms import bandwidth, deletion
from analyses.terms.bandwidth import EXCLUSIVE
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

WINDOWS = 64
"The number of held-out windows on which deletion is measured."


@dataclass(frozen=True)
class _Use:
    """The measures of one model's use of its stream."""

    name: str
    colour: str
    spectra: DataArray
    share: DataArray
    present: DataArray
    "The attention of each head to the present token."
    score: DataArray
    "The copying score of each head."
    cosines: DataArray | None
    deletion: Dataset

    @property
    def deletes(self) -> str:
        """The heads that delete a writer, with their strongest deletion in numbers."""
        heads = deletion.deleting_heads(self.deletion)
        return ", ".join(self._strongest(self.deletion.sel(head=head)) for head in heads) or "none"

    def _strongest(self, row: Dataset) -> str:
        at = row.isel(term=int(row.projection.where(row.deletes).argmin("term")))
        return (f"{row['head'].item()} of {at['term'].item()} (projection "
                f"{float(at.projection):+.2f}, {float(at.low):+.2f} to {float(at.high):+.2f}; left "
                f"without the head {float(at.left):+.2f})")  # fmt: skip


@figure(
    "framework/bandwidth",
    "Who shares the stream's bandwidth",
    "Framework, Subspaces and residual stream bandwidth (F4)",
    "joint PCA shows mixed directions and some used by one of W_E and W_U alone, and some heads "
    "may delete information, that attend to the present token with negative OV eigenvalues",
    layers=1,
)
def bandwidth_use(model: GPT) -> Finding:
    """The shares of W_E and W_U in the directions of the stream, heads that delete vectors of the
    embedding or of an earlier layer, and neurons with opposed input and output weights."""
    tokens = windows(model, WINDOWS)
    trained = _use(model, tokens, "trained", plots.TRAINED)
    start = _use(at_initialisation(model), tokens, "at init", plots.CONTROL)
    deletes, by_luck = (deletion.deleting_heads(use.deletion) for use in (trained, start))
    exclusive, lucky = (bandwidth.exclusive(use.share) for use in (trained, start))
    told = ""
    if trained.cosines is not None:
        opposed = float((trained.cosines < -0.5).mean())
        told = f"; {opposed:.0%} of neurons have a cosine below -0.5"

    def picture() -> Picture:
        figure, axes = plots.grid(1, 3 if trained.cosines is None else 4, (3.4, 3.2))
        panels = [_draw_spectra, _draw_shares, _draw_deleting, _draw_neurons]
        for panel, ax in zip(panels, axes[0], strict=False):
            panel((trained, start), ax)
        return figure

    return Finding(
        len(deletes) > 0 and not by_luck,
        f"heads that delete a writer: {trained.deletes} (at initialisation {start.deletes}); "
        f"{exclusive} of {trained.share.size} joint directions have over {EXCLUSIVE:.0%} of their "
        f"variance from one matrix ({lucky} at initialisation){told}",
        "Left: the variance of the embeddings and of the unembeddings of all tokens in their own "
        "principal directions. Second: the joint principal directions of W_E and W_U, both scaled "
        "to the same size; beyond the dashed lines one matrix alone uses the direction. Third: "
        "each head by its attention to the present token and its OV eigenvalues; the paper expects "
        "heads that delete at the lower right; framed: heads that delete by the test. "
        + ("" if trained.cosines is None else "Last: the cosine of each neuron's weights. ")
        + "The test: some head deletes the vector of an earlier part, and no head does at "
        "initialisation. A head deletes a vector if, on held-out windows, its output projected on "
        f"the vector is below -{deletion.LEAST} of it, with the interval below 0, and the share of "
        f"the vector in the final stream is larger by more than {deletion.LEFT} when the head "
        "writes zero.",
        picture,
    )


@figure(
    "framework/moves",
    "A head moves information",
    "Framework, Attention heads as information movement (F5)",
    "a head moves information from one token's stream to another's, where its pattern says",
    layers=1,
    illustration=True,
)
def moves(model: GPT) -> Finding:
    """The pattern of one head as arrows from the residual stream of one token to the stream of
    another token. The paper draws such arrows."""
    tokens = prompt(model)
    layer, head, role = _busiest(model)
    label = f"L{layer}H{head}"
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=attention.is_pattern_or_value)
    pattern = cache["pattern", layer][0, head]
    moved = pattern.clone()
    moved[:, 0] = 0  # attention to the first token moves nothing
    dest, src = divmod(int(moved.argmax()), moved.shape[1])
    shown = words_of(model, tokens)
    rules = {name: rule for name, rule in masks.BEHAVIOURS.items() if name != "first token"}
    right = role in rules and bool(rules[role].mask(tokens)[0, dest, src])
    named = "no role" if role == "-" else role

    def picture() -> Picture:
        found = DataArray(to_numpy(pattern), dims=("dest", "src"))
        return picture_of(
            plots.arrows(found, shown, strongest=(dest, src), title=f"{label}: {named}")
        )

    return Finding(
        right,
        f"the strongest arrow of {label} ({named}) leads from {shown[src]!r} ({src}) to "
        f"{shown[dest]!r} ({dest}), with {float(moved.max()):.2f} of the attention, "
        + ("as the head's role says" if right else "which the role of the head does not explain"),
        "The pattern of one head on a prompt of ours. A wider arrow is more attention; grey: "
        "arrows from the first token; orange: the strongest of the other arrows. The role of the "
        "head comes from its scores on random tokens, not on this prompt.",
        picture,
    )


def _use(model: GPT, tokens: Int[Tensor, "window pos"], name: str, colour: str) -> _Use:
    cosines = None if model.cfg.d_mlp is None else bandwidth.neuron_cosines(model)
    return _Use(name, colour, bandwidth.spectra(model), bandwidth.joint_share(model),
                attention.current_token(model), copying.score(model), cosines,
                deletion.deletion(model, tokens))  # fmt: skip


def _draw_spectra(uses: tuple[_Use, _Use], ax: Axes) -> None:
    for use, style, end in zip(uses, ("-", ":"), ("", " at init"), strict=True):
        for name, colour in (("W_E", "#0072B2"), ("W_U", "#D55E00")):
            part = use.spectra.sel(matrix=name).cumsum("direction")
            ax.plot(part.direction + 1, part, style, color=colour, label=f"${name}${end}")
    ax.set(xlabel="principal directions", ylabel="share of variance in them", ylim=(0, 1),
           title="Spectra")  # fmt: skip
    ax.legend(frameon=False, fontsize=8, handlelength=1.4, loc="lower right")


def _draw_shares(uses: tuple[_Use, _Use], ax: Axes) -> None:
    for use in uses:
        ax.plot(np.arange(use.share.size) + 1, use.share, color=use.colour, label=use.name)
    for bound in (1 - EXCLUSIVE, EXCLUSIVE):
        ax.axhline(bound, color="0.3", ls="--", lw=0.8)
    ax.set(xlabel="joint direction, sorted", ylabel="$W_E$'s share of its variance",
           ylim=(0, 1), title="Shared directions")  # fmt: skip
    ax.legend(frameon=False, fontsize=8, loc=(0.45, 0.16))


def _draw_deleting(uses: tuple[_Use, _Use], ax: Axes) -> None:
    for use in uses:
        ax.scatter(use.present, use.score, color=use.colour, s=28, label=use.name)
    placed: list[tuple[float, float]] = []
    for name, u, v in zip(*(x.values.flat for x in (uses[0].score.label, uses[0].present,
                                                    uses[0].score)), strict=True):  # fmt: skip
        close = sum(abs(u - a) + abs(v - b) < 0.12 for a, b in placed)
        side = -1 if u > 0.85 else 1
        ax.annotate(str(name), (u, v), xytext=(5 * side, -3 - 9 * close), fontsize=7,
                    textcoords="offset points", ha="left" if side > 0 else "right")  # fmt: skip
        placed.append((float(u), float(v)))
        if name in deletion.deleting_heads(uses[0].deletion):
            ax.scatter(u, v, s=110, facecolors="none", edgecolors="#D55E00", linewidths=1.5)
    ax.axhline(0, color="0.6", lw=0.8)
    ax.set(xlim=(-0.02, 1.02), ylim=(-1.05, 1.05), xlabel="attention to the present token",
           ylabel="sum(eig) / sum(|eig|) of OV", title="Heads that delete (framed)")  # fmt: skip
    ax.legend(frameon=False, fontsize=8, handlelength=1.4, loc="upper right")


def _draw_neurons(uses: tuple[_Use, _Use], ax: Axes) -> None:
    for_each = [use.cosines.values.ravel() for use in uses if use.cosines is not None]
    ax.hist(for_each, bins=np.linspace(-1, 1, 21).tolist(), color=[use.colour for use in uses],
            label=[use.name for use in uses])  # fmt: skip
    ax.set(xlabel="$\\cos(w_{in}, w_{out})$", ylabel="neurons", title="Neurons")
    ax.legend(frameon=False, fontsize=8)


def _busiest(model: GPT) -> tuple[int, int, str]:
    """Layer, head and role of the best induction head. If there is no induction head: of the head
    with the highest score of any role but "first token"."""
    scores = attention.taxonomy(model)
    busy = scores.where(scores.behaviour != "first token", 0.0)
    layer, head, _ = np.unravel_index(int(busy.values.argmax()), busy.shape)
    preferred = attention.prefix_matching(model)
    if float(preferred.max()) > attention.THRESHOLD:
        layer, head = np.unravel_index(int(preferred.values.argmax()), preferred.shape)
    return int(layer), int(head), str(scores.role.values[layer, head])
