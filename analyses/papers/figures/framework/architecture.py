"""Framework paper, "Transformer overview": the parts of the model and how they meet (F1 to F3)."""

import numpy as np
import torch
from xarray import DataArray

from analyses import plots
from analyses.labelled import to_numpy, words_of
from analyses.papers.figures.framework.sums import adds_up, prompt, rows
from analyses.papers.figures.record import Finding, Picture, figure
from analyses.terms import bandwidth
from circuits import residual
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, GPTConfig


@figure(
    "framework/architecture",
    "The architecture, and what each part writes",
    "Framework, High-level architecture (F1)",
    "embed, then layers that each add to the stream, then unembed",
    identity=True,
)
def architecture(model: GPT) -> Finding:
    """The embedding, blocks of heads that read the residual stream and add to it, and the
    unembedding. Beside them, the size of the vector that each part writes on a prompt."""
    tokens = prompt(model)
    written = bandwidth.write_norms(model, tokens).mean("pos")
    names = [str(name) for name in written.component.values]
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        total = residual.components(model, cache).total
        error = float((model.unembed(model.ln_final(total)) - logits).abs().max())
    largest = float(logits.abs().max())

    def picture() -> Picture:
        sequence = _parts(model.cfg)
        figure, axes = plots.grid(1, 2, (5.0, max(0.85 * len(sequence), 3.4)))
        figure.get_layout_engine().set(w_pad=0.1)  # type: ignore[union-attr]
        plots.steps(sequence, axes[0, 0])
        ax = axes[0, 1]
        ax.barh(range(len(names)), written.values, color=plots.TRAINED)
        ax.set_yticks(range(len(names)), names, fontsize=8)
        ax.set(xlabel="mean norm of the vectors that it adds", title="what each part writes")
        ax.spines[["top", "right"]].set_visible(False)
        return figure

    return Finding(
        adds_up(error, largest),
        f"the logits are the unembedding of the sum of the vectors of {len(names)} parts, with an "
        f"error of at most {error:.0e} of logits up to {largest:.1f}; "
        f"{names[int(written.values.argmax())]} writes most ({float(written.max()):.1f})",
        "Left: the parts of this model. Every part reads through a norm, which the equations leave "
        f"out{'' if model.cfg.normalization_type else ' (this model has no norms)'}. Right: the "
        "mean norm of the vectors that each part adds to the stream, on a prompt of "
        f"{tokens.shape[1]} tokens; b_O and b_out are biases. The test: the unembedding of the sum "
        "of all parts gives the logits.",
        picture,
    )


@figure(
    "framework/residual-stream",
    "The residual stream as a channel",
    "Framework, The residual stream as a communication channel (F2)",
    "the residual stream is the sum of the embedding and the output of all layers",
    identity=True,
)
def residual_stream(model: GPT) -> Finding:
    """The vectors that each part writes to the residual stream, token by token, and the cosine of
    the stream with its start. The stream is the plain sum of all vectors that were written."""
    tokens, cfg = prompt(model), model.cfg
    between = cfg.d_mlp is not None and not cfg.parallel_attn_mlp
    written = bandwidth.write_norms(model, tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        streams = residual.streams(model, cache, mid=between)[:, 0]
    kept = torch.cosine_similarity(streams, streams[:1], dim=-1)
    places = residual.places(model, mid=between)
    error, size = written.attrs["error"], float(streams[-1].abs().max())

    def picture() -> Picture:
        cosine = DataArray(
            to_numpy(kept), dims=("place", "pos"), coords={"place": places},
            attrs={"bounds": (-1.0, 1.0), "long_name": "cosine"},
        )  # fmt: skip
        figure, (top, bottom) = rows([0.27 * len(written) + 1.2, 0.27 * len(places) + 1.2])
        read = words_of(model, tokens)
        plots.terms(written, read, top, "Norm of the vector that each part writes at each token")
        top.set_xticks([])
        title = "Cosine of the stream with the stream at the start"
        plots.terms(cosine, read, bottom, title)
        return figure

    return Finding(
        adds_up(error, size),
        f"{len(written)} parts sum to the final stream, with an error of at most {error:.0e} of "
        f"entries up to {size:.1f}; the cosine of the final stream with the stream at the start is "
        f"{float(kept[-1].mean()):.2f}",
        "Above: the norm of the vector that each part writes at each token. Two parts that cancel "
        "each other both have a large norm. Below: the cosine between the stream at each place and "
        "the stream at the start (1: the same direction). The test: the parts sum to the final "
        "stream.",
        picture,
    )


@figure(
    "framework/virtual-weights",
    "Virtual weights",
    "Framework, Virtual weights (F3)",
    "virtual weights directly connect any pair of layers",
    layers=1,
    illustration=True,
)
def virtual_weights(model: GPT) -> Finding:
    """The size of the product of the output weights of each part and the input weights of each
    later part. Through this product the later part reads the earlier part."""
    found = bandwidth.virtual_weights(model)
    controls = [_most(bandwidth.virtual_weights(at_initialisation(model, seed)))[2]
                for seed in (None, *range(1, 20))]  # fmt: skip
    writer, reader, size = _most(found)

    def picture() -> Picture:
        limit = max(1.0, float(abs(found).max()))
        n_rows, columns = found.shape
        panel = (max(0.3 * columns + 2.0, 5.5), max(0.36 * n_rows + 1.4, 2.6))
        figure, axes = plots.grid(1, 1, panel)
        attrs = {"bounds": (-limit, limit), "long_name": "log2 of size over chance"}
        plots.heatmap(found.assign_attrs(attrs), axes[0, 0])
        axes[0, 0].set(xlabel="reader", ylabel="writer")
        return figure

    return Finding(
        size > max(controls),
        f"the strongest virtual weights lead from {writer} to {reader}, {2**size:.1f} times chance "
        f"(in 20 models at initialisation at most {2 ** max(controls):.2f} times)",
        "Each cell is a writer and a reader: the Frobenius norm of the product of their weights, "
        "divided by both norms and by the same ratio of random matrices, as a logarithm to base 2. "
        "1: twice as much as chance, -1: half, blank: the reader comes before the writer. The "
        "model's norms are folded into the readers; shortformer positions are not in the stream.",
        picture,
    )


def _parts(cfg: GPTConfig) -> list[plots.Step]:
    """The parts of a model with their equations, from bottom to top."""
    in_stream = not cfg.shortformer and cfg.positional_embedding_type != "none"
    place = " + p" if in_stream else ""
    parts = [
        plots.Step("tokens", f"$t$: one of {cfg.d_vocab:,} tokens at each place"),
        plots.Step("embed", f"$x_0 = W_E\\,t{place}$,   $d_{{model}} = {cfg.d_model}$"),
    ]
    for i in range(cfg.n_layers):
        heads = [f"L{i}H{h}" for h in range(cfg.n_heads)]
        mid = f"x_{{{i}}}^{{mid}}" if cfg.d_mlp else f"x_{{{i + 1}}}"
        name = f"layer {i}: {cfg.n_heads} heads, $d_{{head}} = {cfg.d_head}$"
        parts.append(plots.Step(name, f"${mid} = x_{{{i}}} + \\sum_h h(x_{{{i}}})$", heads))
        if cfg.d_mlp:
            formula = f"$x_{{{i + 1}}} = {mid} + m({mid})$"
            parts.append(plots.Step(f"{cfg.d_mlp} neurons", formula, [f"MLP{i}"]))
    final = f"$T(t) = W_U\\,x_{{{cfg.n_layers}}}$,   logits of {cfg.d_vocab:,} tokens"
    return [*parts, plots.Step("unembed", final)]


def _most(found: DataArray) -> tuple[str, str, float]:
    """The writer and the reader of the largest entry, and the entry."""
    i, j = np.unravel_index(int(np.nanargmax(found.values)), found.shape)
    return str(found.writer.values[i]), str(found.reader.values[j]), float(found.values[i, j])
