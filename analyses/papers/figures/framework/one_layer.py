"""Framework paper, "One-layer attention-only transformers": the equations with numbers (F6 to F8),
and circuits between tokens (F9)."""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import copying
from analyses.heads.skip_trigrams import through_first_norm
from analyses.labelled import to_numpy, words_of
from analyses.papers.figures.framework.sums import (
    NOTE,
    ONE_LAYER,
    adds_up,
    prompt,
    sizes,
    terms,
)
from analyses.papers.figures.record import Finding, Picture, one_layer_figure
from analyses.prompts import passages
from analyses.terms import expansion
from circuits import algebra
from circuits.ground_truth.controls import at_initialisation
from circuits.matrices import FactoredMatrix
from circuits.model import GPT

SUBSET = 12
"The number of tokens whose QK and OV entries are shown."


@one_layer_figure(
    "framework/one-layer",
    "The model as a product of tensors",
    "Framework, One-layer attention-only transformers (F6, F7)",
    "the transformer is a product of three terms, embedding, heads and unembedding",
    layers=1,
    identity=True,
)
def one_layer(model: GPT) -> Finding:
    """The whole model as a product of three tensors: W_E, then the heads plus the identity, then
    W_U. The product of the weights and the patterns of a run gives every logit. (A deeper model has
    one more factor for each layer.)"""
    with torch.no_grad():
        logits, cache = model.run_with_cache(prompt(model))
        product = expansion.multiply_out(model, cache)
    error, largest = float((product - logits).abs().max()), float(logits.abs().max())
    ours, theirs = to_numpy(product[0]).ravel(), to_numpy(logits[0]).ravel()

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.7, 3.6))
        factor = r"(Id + \sum_h A^h \otimes W_{OV}^h)"
        middle = factor if model.cfg.n_layers == 1 else rf"\prod_l {factor}"
        plots.formula(
            ["The model (F6)",
             r"$x_0 = W_E\,t,\quad x_1 = x_0 + \sum_h h(x_0),\quad T(t) = W_U\,x_1$",
             r"$h(x) = (A^h \otimes W_{OV}^h)\,x$", "as a product of tensors (F7)",
             r"$T = (Id \otimes W_U)$", rf"$\quad\;\cdot\;{middle}$",
             r"$\quad\;\cdot\;(Id \otimes W_E)$"], axes[0, 0],
        )  # fmt: skip
        ax = axes[0, 1]
        ax.hexbin(theirs, ours, gridsize=60, bins="log", cmap="Blues", mincnt=1, lw=0.1)
        ends = [float(theirs.min()), float(theirs.max())]
        ax.plot(ends, ends, color="#D55E00", lw=0.8)
        ax.set(xlabel="logits of the model", ylabel="logits of the product",
               title=f"{ours.size:,} logits, none off by more than {error:.0e}")  # fmt: skip
        return figure

    return Finding(
        adds_up(error, largest),
        f"the product misses none of {ours.size:,} logits by more than {error:.0e}; the largest "
        f"logit is {largest:.1f}",
        "Left: the equations. Right: the logits of the product against the logits of the model. A "
        "darker cell has more logits, on a logarithmic scale; orange: equality. "
        f"{NOTE} The test: the product gives every logit.",
        picture,
    )


@one_layer_figure(
    "framework/expansion",
    "The logits as a sum over paths",
    "Framework, The path expansion trick (F8)",
    "the logits are the direct path and one term a head",
    layers=1,
    identity=True,
)
def expansion_terms(model: GPT) -> Finding:
    """The product multiplied out: one term that passes no head (bigrams) and one for each head.
    Their sum is the logits."""
    tokens = prompt(model)
    found = expansion.by_head(model, tokens)
    deeper = r" + \mathrm{virtual\ heads}" if model.cfg.n_layers > 1 else ""
    return Finding(
        adds_up(found.attrs["error"], found.attrs["largest"]),
        sizes(found, "these terms", "the logits"),
        "Each cell is the root mean square, over the vocabulary, of the part of a term in the "
        f"logits at a token, less its mean. {NOTE} The test: the terms sum to the logits.",
        lambda: terms(model, tokens, found, [rf"${ONE_LAYER}{deeper}$"]),
    )


@one_layer_figure(
    "framework/circuits",
    "QK and OV circuits from token to token",
    "Framework, Splitting attention head terms (F9)",
    "OV circuits say how attending to a token changes the logits, and most heads copy",
    layers=1,
)
def token_circuits(model: GPT) -> Finding:
    """Both circuits of one head as matrices from tokens to tokens, for a few tokens chosen by rule.
    A copying head raises the token that it attends to: the diagonal on the right is dark."""
    ids = _subset(model)
    read, start = (through_first_norm(found) for found in (model, at_initialisation(model)))
    at, control_at = _most_copying(read), _most_copying(start)
    qk, ov = (_block(c[at], ids) for c in (algebra.full_QK(read), algebra.full_OV(read)))
    own, control = _own(ov), _own(_block(algebra.full_OV(start)[control_at], ids))

    def picture() -> Picture:
        labels = words_of(model, ids[None])
        shown = [plots.literal(plots.show_token(label)) for label in labels]
        figure, axes = plots.grid(1, 2, (4.8, 4.2))
        for ax, values, dims, unit, name in (
            (axes[0, 0], qk, ("query token", "key token"), "score", "QK: attention"),
            (axes[0, 1], ov, ("source token", "out token"), "logit",
             "OV: effect on the logits"),
        ):  # fmt: skip
            limit = float(values.abs().max())
            result = DataArray(to_numpy(values), dims=dims, attrs={
                "bounds": (-limit, limit),
                "long_name": f"{unit}, less the mean of its row"})  # fmt: skip
            plots.heatmap(result, ax, f"L{at[0]}H{at[1]}  {name}")
            ax.set_xticks(range(len(ids)), shown, rotation=90, fontsize=8)
            ax.set_yticks(range(len(ids)), shown, fontsize=8)
        return figure

    return Finding(
        own > len(ids) / 2 and control <= len(ids) / 2,
        f"L{at[0]}H{at[1]} (copying {float(copying.score(read).max()):.2f}) raises the attended "
        f"token most of these {len(ids)} tokens for {own} of them, the best copying head at "
        f"initialisation for {control}",
        "Left: the QK circuit of the head with the highest OV eigenvalue score. Right: its OV "
        "circuit. Rows and columns are the commonest words in our passages, of three letters or "
        "more (for a model without text: tokens at even distances). Each row is less its mean over "
        "all tokens, for the softmax does not depend on this mean. Circuits are read behind the "
        "first norm, without positions and biases. The test: on the right the own token is the "
        "largest out of more than half of the sources, and of no more than half in the best "
        "copying head at initialisation.",
        picture,
    )


def _most_copying(model: GPT) -> tuple[int, int]:
    score = copying.score(model)
    layer, head = np.unravel_index(int(score.values.argmax()), score.shape)
    return int(layer), int(head)


def _subset(model: GPT) -> Int[Tensor, " token"]:
    """The commonest words in our passages, of three letters or more, with a space before. For a
    model without text, tokens at even distances."""
    if model.tokenizer is None:
        return torch.linspace(0, model.cfg.d_vocab - 1, min(SUBSET, model.cfg.d_vocab)).long()
    ids, counts = passages.tokens(model)[:, 1:].unique(return_counts=True)
    ids = ids[counts.argsort(descending=True, stable=True)]
    texts = model.to_str_tokens(ids)
    whole = [i for i, t in enumerate(texts) if len(t) > 3 and t[0] == " " and t[1:].isalpha()]
    return ids[whole[:SUBSET]] if len(whole) >= 4 else ids[:SUBSET]


def _block(circuit: FactoredMatrix, ids: Int[Tensor, " token"]) -> Tensor:
    """The entries of a circuit between some tokens, each row less its mean over all tokens."""
    with torch.no_grad():
        return copying.centre_rows(circuit).rows(ids)[:, ids]


def _own(block: Tensor) -> int:
    """The number of rows whose largest entry is on the diagonal."""
    return int((block.argmax(1) == torch.arange(len(block))).sum())
