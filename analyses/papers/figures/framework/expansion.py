"""Framework paper: its equations with numbers: path expansions (F6 to F8, F17, F18), and
circuits between tokens (F9)."""

import numpy as np
import torch
from jaxtyping import Int
from matplotlib.figure import Figure
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, copying
from analyses.labelled import to_numpy, words_of
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict, require_layers
from analyses.papers.figures.framework.prompt import prompt
from analyses.prompts import passages
from analyses.terms import expansion
from circuits import algebra
from circuits.ground_truth.controls import at_initialisation
from circuits.matrices import FactoredMatrix
from circuits.model import GPT

SMALL = 1e-4
"A sum equals the truth when no entry misses it by more than this share of the largest (or of 1)."
SUBSET = 12
"Tokens whose QK and OV entries are shown."
ONE_LAYER = r"T = Id \otimes W_U W_E + \sum_h A^h \otimes (W_U W_{OV}^h W_E)"
NOTE = (
    "Equations in the paper's column vectors, without norms, biases and positions. In the numbers "
    "each norm is linear, its 1/sigma that of this run, and what positions, biases and MLPs write "
    "goes with the paths that begin there."
)


def one_layer(model: GPT) -> Drawing:
    """F6 and F7, "One-layer attention-only transformers": the whole model as a product of three
    tensors: W_E, then the heads beside the identity, then W_U. Multiplied out plainly from the
    weights and the patterns of a run, it gives every logit. (Deeper: one more factor a layer.)"""
    require_layers(model, 1, "a product with heads")
    tokens = prompt(model)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        product = expansion.multiplied(model, cache)
    error, largest = float((product - logits).abs().max()), float(logits.abs().max())
    figure, axes = plots.grid(1, 2, (4.7, 3.6))
    factor = r"(Id + \sum_h A^h \otimes W_{OV}^h)"
    middle = factor if model.cfg.n_layers == 1 else rf"\prod_l {factor}"
    plots.formula(
        ["The model (F6)", r"$x_0 = W_E\,t,\quad x_1 = x_0 + \sum_h h(x_0),\quad T(t) = W_U\,x_1$",
         r"$h(x) = (A^h \otimes W_{OV}^h)\,x$", "as a product of tensors (F7)",
         r"$T = (Id \otimes W_U)$", rf"$\quad\;\cdot\;{middle}$",
         r"$\quad\;\cdot\;(Id \otimes W_E)$"], axes[0, 0],
    )  # fmt: skip
    ours, theirs = to_numpy(product[0]).ravel(), to_numpy(logits[0]).ravel()
    ax = axes[0, 1]
    ax.hexbin(theirs, ours, gridsize=60, bins="log", cmap="Blues", mincnt=1, lw=0.1)
    ends = [float(theirs.min()), float(theirs.max())]
    ax.plot(ends, ends, color="#D55E00", lw=0.8)
    ax.set(xlabel="logits of the model", ylabel="logits of the product",
           title=f"{ours.size:,} logits, none off by more than {error:.0e}")  # fmt: skip
    says = (
        f"paper: the transformer is a product of three terms, embedding, heads and unembedding; "
        f"here the product misses none of {ours.size:,} logits by more than {error:.0e}, of up to "
        f"{largest:.1f}"
    )
    return Drawing(
        figure,
        "The model as a product of tensors",
        f"Framework, One-layer attention-only transformers (F6, F7), {FRAMEWORK}",
        f"{NOTE} Orange: equality. The darker, the more logits, on a logarithmic scale.",
        Verdict(error < SMALL * max(1.0, largest), says),
    )


def expansion_terms(model: GPT) -> Drawing:
    """F8, "The path expansion trick": the product multiplied out: one term that passes no head
    (bigrams) and one for each head. Their sum is the logits."""
    require_layers(model, 1, "an expansion over heads")
    tokens = prompt(model)
    found = expansion.by_head(model, tokens)
    deeper = r" + \mathrm{virtual\ heads}" if model.cfg.n_layers > 1 else ""
    figure = _terms(model, tokens, found, [rf"${ONE_LAYER}{deeper}$"])
    return Drawing(
        figure,
        "The logits as a sum over paths",
        f"Framework, The path expansion trick (F8), {FRAMEWORK}",
        f"{NOTE} Cells: root mean square over the vocabulary of what a term adds to the logits "
        "less their mean.",
        _sums(found, "the logits are the direct path and one term a head", "these"),
    )


def token_circuits(model: GPT) -> Drawing:
    """F9, "Splitting attention head terms into query-key and output-value circuits": both circuits
    of one head as matrices from tokens to tokens, for a few tokens chosen by rule. A copying head
    raises the token it attends to: a dark diagonal on the right."""
    require_layers(model, 1, "circuits of heads")
    score = copying.score(model)
    layer, head = np.unravel_index(int(score.values.argmax()), score.shape)
    control_score = copying.score(at_initialisation(model))
    control_at = np.unravel_index(int(control_score.values.argmax()), score.shape)
    ids = _subset(model)
    labels = words_of(model, ids[None])
    qk, ov = (_block(c[int(layer), int(head)], ids)
              for c in (algebra.full_QK(model), algebra.full_OV(model)))  # fmt: skip
    figure, axes = plots.grid(1, 2, (4.8, 4.2))
    for ax, values, dims, name in (
        (axes[0, 0], qk, ("query token", "key token"), "QK: who is looked at"),
        (axes[0, 1], ov, ("source token", "out token"), "OV: what attending to it does"),
    ):
        shown = [plots.literal(plots.show_token(label)) for label in labels]
        unit = "score" if "query" in dims[0] else "logit"
        result = DataArray(to_numpy(values), dims=dims, attrs={
            "bounds": (-float(values.abs().max()), float(values.abs().max())),
            "long_name": f"{unit}, less the mean of its row"})  # fmt: skip
        plots.heatmap(result, ax, f"L{layer}H{head}  {name}")
        ax.set_xticks(range(len(ids)), shown, rotation=90, fontsize=8)
        ax.set_yticks(range(len(ids)), shown, fontsize=8)
    own = _own(ov)
    untrained = algebra.full_OV(at_initialisation(model))[int(control_at[0]), int(control_at[1])]
    control = _own(_block(untrained, ids))
    says = (
        f"paper: OV circuits say how attending to a token changes the logits, and most heads copy; "
        f"here L{layer}H{head} (copying {float(score.max()):.2f}) raises the very token it attends "
        f"to most of these {len(ids)} for {own} of them, the most copying head at initialisation "
        f"for {control}"
    )
    return Drawing(
        figure,
        "QK and OV circuits from token to token",
        f"Framework, Splitting attention head terms (F9), {FRAMEWORK}",
        "The head with the highest OV eigenvalue score, and the commonest words in our passages, "
        "of three letters or more (for a model without text: tokens evenly spread). Rows less "
        "their mean over all tokens, since the softmax does not see it; positions, biases and the "
        "scale of norms left out.",
        Verdict(own > len(ids) / 2 and control <= len(ids) / 2, says),
    )


def two_layers(model: GPT) -> Drawing:
    """F17, "Path expansion of logits": direct path, individual heads, virtual heads: three groups
    of terms (one more for each further layer) that sum to the logits."""
    require_layers(model, 2, "virtual heads")
    tokens = prompt(model)
    found = expansion.by_order(model, tokens)
    lines = [
        rf"${ONE_LAYER}$",
        r"$\quad + \sum_{h_2, h_1} (A^{h_2} A^{h_1}) \otimes "
        r"(W_U W_{OV}^{h_2} W_{OV}^{h_1} W_E)" + (r" + \ldots$" if len(found) > 3 else "$"),
    ]
    return Drawing(
        _terms(model, tokens, found, lines),
        "The logits of a deeper model, by how many heads a path passes",
        f"Framework, Path expansion of logits (F17), {FRAMEWORK}",
        f"{NOTE} Cells: root mean square over the vocabulary of what a group of terms adds to the "
        "logits less their mean. Size is not use: see the term importance.",
        _sums(found, "direct path, heads and virtual heads sum to the logits", "they"),
    )


def qk_expansion(model: GPT) -> Drawing:
    """F18, "Path expansion of attention scores": the scores of a second-layer head as four groups:
    tokens or what first-layer heads moved, as query, with the same as key. An induction
    head's stripe of matches is in a group whose key was moved (K-composition); its query is the
    token, or what a head that attends to the present token made of it."""
    require_layers(model, 2, "queries and keys made by earlier heads")
    tokens = prompt(model)
    head = f"L1H{int(attention.prefix_matching(model)[1].values.argmax())}"
    found = expansion.score_terms(model, tokens, head)
    whole = found.sum("term")
    limit = max(float(abs(found).max()), float(abs(whole).max()), 1e-9)
    names = {"order 0 x order 0": r"$Id \otimes Id$", "order 0 x order 1": r"$Id \otimes A^{h_k}$",
             "order 1 x order 0": r"$A^{h_q} \otimes Id$",
             "order 1 x order 1": r"$A^{h_q} \otimes A^{h_k}$"}  # fmt: skip
    under = {
        "order 0 x order 0": "tokens for tokens",
        "order 0 x order 1": "tokens for moved",
        "order 1 x order 0": "moved for tokens",
        "order 1 x order 1": "moved for moved",
    }
    figure, axes = plots.grid(1, len(found) + 1, (1.75, 2.2))
    hidden = np.triu(np.ones(whole.shape, dtype=bool), 1)
    for i, (ax, panel) in enumerate(zip(axes[0], [*found, whole], strict=True)):
        term = str(panel.term.values) if i < len(found) else ""
        title = f"{names[term]}\n{under[term]}" if term else f"sum: scores\nof {head}"
        attrs = {"bounds": (-limit, limit), "long_name": "score before the softmax"}
        shown = panel.where(~hidden).drop_vars("term", errors="ignore").assign_attrs(attrs)
        plots.heatmap(shown, ax, title, bar=i == len(found))
        ax.set(xlabel="source", ylabel="destination" if i == 0 else "", xticks=[], yticks=[])
        ax.title.set_fontsize(9)
    labels = [plots.literal(plots.show_token(word)) for word in words_of(model, tokens)]
    axes[0, 0].set_yticks(range(len(labels)), labels, fontsize=6)
    centred = {str(p.term.values): _spread(p.values) for p in found}
    said = ", ".join(f"{under[term]} {size:.1f}" for term, size in centred.items())
    error, largest = found.attrs["error"], float(abs(whole).max())
    says = (
        f"paper: attention scores expand into four groups of terms, by whether query and key pass "
        f"a head; here the groups of {head} sum to its scores up to {error:.0e} of scores up to "
        f"{largest:.1f}, and spread over sources by {said}"
    )
    return Drawing(
        figure,
        "Attention scores by path of query and of key",
        f"Framework, Path expansion of attention scores (F18), {FRAMEWORK}",
        f"The second-layer head with the most prefix matching. {NOTE} Spread: the mean over "
        "destinations of the standard deviation over sources, since the softmax sees no more.",
        Verdict(error < SMALL * max(1.0, largest), says),
    )


def _spread(term: np.ndarray) -> float:
    return float(np.mean([row[: i + 1].std() for i, row in enumerate(term) if i > 0]))


def _terms(model: GPT, tokens: Int[Tensor, "1 pos"], found: DataArray, lines: list[str]) -> Figure:
    """Formulas above the sizes of their terms on each token."""
    figure, axes = plots.grid(1, 1, (9.2, 0.3 * len(found) + 0.5 * len(lines) + 1.3))
    axes[0, 0].remove()
    heights = [0.5 * len(lines), 0.3 * len(found) + 0.6]
    top, bottom = figure.subplots(2, 1, height_ratios=heights)
    plots.formula(lines, top)
    plots.terms(found, words_of(model, tokens), bottom)
    return figure


def _sums(found: DataArray, claim: str, they: str) -> Verdict:
    """The paper's claim, and the mean sizes of `they`, the terms, with what their sum misses."""
    mean = found.mean("pos")
    said = ", ".join(f"{label} {float(mean.sel(term=label)):.2f}" for label in found.term.values)
    error, largest = found.attrs["error"], found.attrs["largest"]
    says = (
        f"paper: {claim}; here {they} ({said}) sum to them up to {error:.0e} of values up to "
        f"{largest:.1f}"
    )
    return Verdict(error < SMALL * max(1.0, largest), says)


def _subset(model: GPT) -> Int[Tensor, " token"]:
    """The commonest words in our passages, of three letters or more and a space before; tokens
    spread evenly where there is no text."""
    if model.tokenizer is None:
        return torch.linspace(0, model.cfg.d_vocab - 1, min(SUBSET, model.cfg.d_vocab)).long()
    ids, counts = passages.tokens(model)[:, 1:].unique(return_counts=True)
    ids = ids[counts.argsort(descending=True, stable=True)]
    texts = model.to_str_tokens(ids)
    whole = [i for i, t in enumerate(texts) if len(t) > 3 and t[0] == " " and t[1:].isalpha()]
    return ids[whole[:SUBSET]] if len(whole) >= 4 else ids[:SUBSET]


def _block(circuit: FactoredMatrix, ids: Int[Tensor, " token"]) -> Tensor:
    """The entries between some tokens, each row less its mean over all tokens."""
    with torch.no_grad():
        return copying.centre_rows(circuit).rows(ids)[:, ids]


def _own(block: Tensor) -> int:
    """How many rows have their largest entry on the diagonal."""
    return int((block.argmax(1) == torch.arange(len(block))).sum())
