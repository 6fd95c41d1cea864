"""Framework paper, "Transformer overview": the parts of the model and how they meet (F1 to F5)."""

import numpy as np
import torch
from matplotlib.axes import Axes
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, copying, masks
from analyses.heads.attention import THRESHOLD
from analyses.labelled import to_numpy, words_of
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict, figure_of
from analyses.papers.figures.framework.prompt import prompt
from analyses.terms import bandwidth
from analyses.terms.bandwidth import EXCLUSIVE
from circuits import residual
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

SMALL = 1e-4
"A sum equals the truth when no entry misses it by more than this share of the largest (or of 1)."


def architecture(model: GPT) -> Drawing:
    """F1, "High-level architecture": tokens, embedding, blocks of heads that read the residual
    stream and add to it, unembedding; beside it how much each part writes on a prompt."""
    cfg, tokens = model.cfg, prompt(model)
    in_stream = not cfg.shortformer and cfg.positional_embedding_type != "none"
    place = " + p" if in_stream else ""
    embedded = f"$x_0 = W_E\\,t{place}$,   $d_{{model}} = {cfg.d_model}$"
    sequence = [plots.Step("tokens", f"$t$: one of {cfg.d_vocab:,} tokens at each place")]
    sequence.append(plots.Step("embed", embedded))
    for i in range(cfg.n_layers):
        heads = [f"L{i}H{h}" for h in range(cfg.n_heads)]
        mid = f"x_{{{i}}}^{{mid}}" if cfg.d_mlp else f"x_{{{i + 1}}}"
        sequence.append(plots.Step(
            f"layer {i}: {cfg.n_heads} heads, $d_{{head}} = {cfg.d_head}$",
            f"${mid} = x_{{{i}}} + \\sum_h h(x_{{{i}}})$", heads))  # fmt: skip
        if cfg.d_mlp:
            formula = f"$x_{{{i + 1}}} = {mid} + m({mid})$"
            sequence.append(plots.Step(f"{cfg.d_mlp} neurons", formula, [f"MLP{i}"]))
    final = f"$T(t) = W_U\\,x_{{{cfg.n_layers}}}$,   logits of {cfg.d_vocab:,} tokens"
    sequence.append(plots.Step("unembed", final))
    written = bandwidth.written(model, tokens).mean("pos")
    figure, axes = plots.grid(1, 2, (5.0, max(0.85 * len(sequence), 3.4)))
    figure.get_layout_engine().set(w_pad=0.1)  # type: ignore[union-attr]
    plots.steps(sequence, axes[0, 0])
    ax, names = axes[0, 1], [str(name) for name in written.component.values]
    ax.barh(range(len(names)), written.values, color=plots.TRAINED)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set(xlabel="mean norm of what is written", title="what each part writes")
    ax.spines[["top", "right"]].set_visible(False)
    error, largest = _logit_error(model)
    largest_writer = names[int(written.values.argmax())]
    says = (
        f"paper: embed, then layers that each add to the stream, then unembed; here the logits are "
        f"the unembedding of the sum of what {len(names)} parts wrote, up to {error:.0e} of logits "
        f"up to {largest:.1f}; most is written by {largest_writer} ({float(written.max()):.1f})"
    )
    return Drawing(
        figure,
        "The architecture, and what each part writes",
        f"Framework, High-level architecture (F1), {FRAMEWORK}",
        "Left: this model; every read goes through a norm, which the equations leave out"
        f"{'' if cfg.normalization_type else ' (it has none)'}. "
        "Right: mean norm of what each part adds to the stream on a prompt of "
        f"{tokens.shape[1]} tokens; b_O and b_out are biases.",
        Verdict(error < SMALL * max(1.0, largest), says),
    )


def residual_stream(model: GPT) -> Drawing:
    """F2, "The residual stream as a communication channel": what is written to it token by token,
    and how much of it is still the embedding. It is the plain sum of all that was written."""
    tokens = prompt(model)
    written, between = bandwidth.written(model, tokens), model.cfg.d_mlp is not None
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        streams = residual.accumulated(model, cache, mid=between)[:, 0]
    kept = torch.cosine_similarity(streams, streams[:1], dim=-1)
    places = residual.places(model, mid=between)
    cosine = DataArray(
        to_numpy(kept), dims=("place", "pos"), coords={"place": places},
        attrs={"bounds": (-1.0, 1.0), "long_name": "cosine"},
    )  # fmt: skip
    rows = [len(written), len(places)]
    figure, axes = plots.grid(1, 1, (9.2, 0.27 * sum(rows) + 2.4))
    axes[0, 0].remove()
    top, bottom = figure.subplots(2, 1, height_ratios=rows)
    plots.terms(
        written, words_of(model, tokens), top, "Norm of what each part writes at each token"
    )
    top.set_xticks([])
    title = "How much the stream still points where it did at the start"
    plots.terms(cosine, words_of(model, tokens), bottom, title)
    error, size = written.attrs["error"], float(streams[-1].abs().max())
    says = (
        f"paper: the residual stream is the sum of the embedding and the output of all layers; "
        f"here {len(written)} parts sum to the final stream up to {error:.0e} of entries up to "
        f"{size:.1f}, and its cosine with the stream at the start is {float(kept[-1].mean()):.2f}"
    )
    return Drawing(
        figure,
        "The residual stream as a channel",
        f"Framework, The residual stream as a communication channel (F2), {FRAMEWORK}",
        "Above: norms, so that parts which cancel count on both sides. Below: cosine between the "
        "stream before or after the heads of each layer and the stream at the start (1: unturned).",
        Verdict(error < SMALL * max(1.0, size), says),
    )


def virtual_weights(model: GPT) -> Drawing:
    """F3, "Virtual weights": any later part reads any earlier one, through the product of the
    writer's output and the reader's input weights; here how large each product is."""
    _require_layers(model, "virtual weights of heads")
    found = bandwidth.virtual_weights(model)
    controls = [_most(bandwidth.virtual_weights(at_initialisation(model, seed)))
                for seed in (None, *range(1, 20))]  # fmt: skip
    limit = max(1.0, float(abs(found).max()))
    rows, columns = found.shape
    figure, axes = plots.grid(1, 1, (max(0.3 * columns + 2.0, 5.5), max(0.36 * rows + 1.4, 2.6)))
    plots.heatmap(found.assign_attrs(bounds=(-limit, limit),
                                     long_name="log2 of size over chance"), axes[0, 0])  # fmt: skip
    axes[0, 0].set(xlabel="reader", ylabel="writer")
    best, at_random = _most(found), max(size for _, _, size in controls)
    says = (
        f"paper: virtual weights directly connect any pair of layers; here the strongest is "
        f"{best[0]} to {best[1]}, {2 ** best[2]:.1f} times chance (in 20 models at "
        f"initialisation at most {2**at_random:.2f} times)"
    )
    return Drawing(
        figure,
        "Virtual weights",
        f"Framework, Virtual weights (F3), {FRAMEWORK}",
        "Frobenius norm of writer times reader over both norms, against what random matrices give; "
        "1: twice as much, -1: half, blank: the reader comes before the writer. Norms are folded "
        "into the readers; shortformer positions are not in the stream.",
        Verdict(best[2] > at_random, says),
    )


def bandwidth_use(model: GPT) -> Drawing:
    """F4, "Subspaces and residual stream bandwidth": how W_E and W_U share the stream's
    directions, and parts that seem to take out what they read: heads that attend to the present
    token with negative OV eigenvalues, neurons with opposed input and output weights."""
    _require_layers(model, "memory management by heads")
    untrained = at_initialisation(model)
    neurons = model.cfg.d_mlp is not None
    figure, axes = plots.grid(1, 4 if neurons else 3, (3.4, 3.2))
    for spectrum, style in ((bandwidth.spectra(model), "-"), (bandwidth.spectra(untrained), ":")):
        for name, colour in (("W_E", "#0072B2"), ("W_U", "#D55E00")):
            label = f"${name}$" if style == "-" else f"${name}$ at init"
            part = spectrum.sel(matrix=name).cumsum("direction")
            axes[0, 0].plot(part.direction + 1, part, style, color=colour, label=label)
    axes[0, 0].set(xlabel="principal directions", ylabel="share of variance in them", ylim=(0, 1),
                   title="Spectra")  # fmt: skip
    share, control = bandwidth.joint_share(model), bandwidth.joint_share(untrained)
    for values, colour, label in ((share, plots.TRAINED, "trained"),
                                  (control, plots.CONTROL, "at init")):  # fmt: skip
        axes[0, 1].plot(np.arange(values.size) + 1, values, color=colour, label=label)
    for bound in (1 - EXCLUSIVE, EXCLUSIVE):
        axes[0, 1].axhline(bound, color="0.3", ls="--", lw=0.8)
    axes[0, 1].set(xlabel="joint direction, sorted", ylabel="$W_E$'s share of its variance",
                   ylim=(0, 1), title="Shared directions")  # fmt: skip
    least = float(copying.score(untrained).min())
    deleting = _deleting(model, least, axes[0, 2], plots.TRAINED, "trained")
    at_start = _deleting(untrained, least, axes[0, 2], plots.CONTROL, "at init")
    axes[0, 2].fill_between([THRESHOLD, 1], -1, least, color="#D55E00", alpha=0.1, lw=0)
    axes[0, 2].axhline(0, color="0.6", lw=0.8)
    axes[0, 2].set(xlim=(-0.02, 1.02), ylim=(-1.05, 1.05), xlabel="attention to the present token",
                   ylabel="sum(eig) / sum(|eig|) of OV", title="Heads that may delete")  # fmt: skip
    for ax, corner in zip(axes[0], ("lower right", "lower right", "upper right"), strict=False):
        ax.legend(frameon=False, fontsize=8, handlelength=1.4, loc=corner)
    axes[0, 1].legend(frameon=False, fontsize=8, loc=(0.45, 0.16))
    told = ""
    if neurons:
        cosines = bandwidth.neuron_cosines(model), bandwidth.neuron_cosines(untrained)
        axes[0, 3].hist(
            [c.values.ravel() for c in cosines],
            bins=np.linspace(-1, 1, 21).tolist(),
            color=[plots.TRAINED, plots.CONTROL],
            label=["trained", "at init"],
        )
        axes[0, 3].set(xlabel="$\\cos(w_{in}, w_{out})$", ylabel="neurons", title="Neurons")
        axes[0, 3].legend(frameon=False, fontsize=8)
        told = f"; {float((cosines[0] < -0.5).mean()):.0%} of neurons have a cosine below -0.5"
    says = (
        f"paper: joint PCA shows mixed directions and some used by one of W_E and W_U alone, and "
        f"some heads attend to the present token with negative OV eigenvalues; here "
        f"{bandwidth.exclusive(share)} of {share.size} joint directions are over {EXCLUSIVE:.0%} "
        f"of one matrix ({bandwidth.exclusive(control)} at initialisation), and "
        f"{', '.join(deleting) or 'no head'} may delete (at initialisation "
        f"{', '.join(at_start) or 'none'}){told}"
    )
    return Drawing(
        figure,
        "Who shares the stream's bandwidth",
        f"Framework, Subspaces and residual stream bandwidth (F4), {FRAMEWORK}",
        "Left: variance of the embeddings and unembeddings of all tokens in their own principal "
        "directions. Second: joint principal directions of both, each scaled to the same size; "
        "dashed: used by one alone. Third: shaded are heads that attend to the present token and "
        "have OV eigenvalues, read from the embedding, more negative than any head at "
        "initialisation; what they delete is not shown by that alone.",
        Verdict(bandwidth.exclusive(share) > bandwidth.exclusive(control)
                and len(deleting) > 0 and not at_start, says),
    )  # fmt: skip


def moves(model: GPT) -> Drawing:
    """F5, "Attention heads move information": a real head's pattern as arrows from the residual
    stream of one token to that of another; the strongest goes where the head's role says."""
    _require_layers(model, "attention")
    tokens = prompt(model)
    scores = attention.taxonomy(model)
    busy = scores.where(scores.behaviour != "first token", 0.0)
    layer, head, _ = np.unravel_index(int(busy.values.argmax()), busy.shape)
    preferred = attention.prefix_matching(model)
    if float(preferred.max()) > THRESHOLD:  # induction tells the most, where there is any
        layer, head = np.unravel_index(int(preferred.values.argmax()), preferred.shape)
    role, label = str(scores.role.values[layer, head]), f"L{layer}H{head}"
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=attention.is_pattern_or_value)
    pattern = cache["pattern", int(layer)][0, int(head)]
    moved = pattern.clone()
    moved[:, 0] = 0  # resting on the first token moves nothing
    dest, src = divmod(int(moved.argmax()), moved.shape[1])
    shown = words_of(model, tokens)
    ax = plots.arrows(
        DataArray(to_numpy(pattern), dims=("dest", "src")), shown, strongest=(dest, src),
        title=f"{label}: {'no role' if role == '-' else role}",
    )  # fmt: skip
    rules = {name: rule for name, rule in masks.BEHAVIOURS.items() if name != "first token"}
    right = role in rules and bool(rules[role].mask(tokens)[0, dest, src])
    told = "as its role says" if right else "not what a role would say"
    says = (
        f"paper: a head moves information from one token's stream to another's, where its pattern "
        f"says; here {label} ({'no role' if role == '-' else role}) carries most from "
        f"{shown[src]!r} ({src}) to {shown[dest]!r} ({dest}), {float(moved.max()):.2f} of its "
        f"attention, {told}"
    )
    return Drawing(
        figure_of(ax),
        "A head moves information",
        f"Framework, Attention heads as information movement (F5), {FRAMEWORK}",
        "The pattern of one head on a prompt of ours, the wider the more attention; grey: from "
        "the first token, where heads rest; orange: the strongest of the others. "
        "Roles are by scores on random tokens, not on this prompt.",
        Verdict(right, says),
    )


def _require_layers(model: GPT, what: str) -> None:
    if model.cfg.n_layers < 1:
        raise ValueError(f"wanted a layer or more for {what}, this model has none")


def _logit_error(model: GPT) -> tuple[float, float]:
    """By how much the unembedded sum of all parts misses the logits, and their largest size."""
    with torch.no_grad():
        logits, cache = model.run_with_cache(prompt(model))
        total = residual.components(model, cache).total
        missed = model.unembed(model.ln_final(total)) - logits
    return float(missed.abs().max()), float(logits.abs().max())


def _most(found: DataArray) -> tuple[str, str, float]:
    i, j = np.unravel_index(int(np.nanargmax(found.values)), found.shape)
    return str(found.writer.values[i]), str(found.reader.values[j]), float(found.values[i, j])


def _deleting(model: GPT, least: float, ax: Axes, colour: str, label: str) -> list[str]:
    """Heads that attend to the present token with a copying score below `least`; all are drawn."""
    present, score = attention.current_token(model), copying.score(model)
    x, y = present.values.ravel(), score.values.ravel()
    ax.scatter(x, y, color=colour, s=28, label=label)
    found = [str(n) for n in score.label.values.ravel()[(x > THRESHOLD) & (y < least)]]
    placed: list[tuple[float, float]] = []
    for name, (u, v) in zip(score.label.values.ravel(), zip(x, y, strict=True), strict=True):
        if label == "trained":
            close = sum(abs(u - a) + abs(v - b) < 0.12 for a, b in placed)
            side = -1 if u > 0.85 else 1
            ax.annotate(str(name), (u, v), xytext=(5 * side, -3 - 9 * close), fontsize=7,
                        textcoords="offset points", ha="left" if side > 0 else "right")  # fmt: skip
            placed.append((float(u), float(v)))
    return found
