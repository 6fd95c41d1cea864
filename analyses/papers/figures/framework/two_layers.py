"""Framework paper, "Two-layer attention-only transformers": path expansions of the logits and of
the attention scores (F17, F18)."""

import numpy as np
from xarray import DataArray

from analyses import plots
from analyses.heads import attention
from analyses.labelled import words_of
from analyses.papers.figures.framework.samples import LACKING, induction_heads
from analyses.papers.figures.framework.sums import (
    NOTE,
    ONE_LAYER,
    adds_up,
    prompt,
    sizes,
    terms,
)
from analyses.papers.figures.record import Finding, Picture, figure
from analyses.terms import expansion
from circuits.model import GPT

GROUPS = {
    "order 0 x order 0": (r"$Id \otimes Id$", "tokens for tokens"),
    "order 0 x order 1": (r"$Id \otimes A^{h_k}$", "tokens for moved"),
    "order 1 x order 0": (r"$A^{h_q} \otimes Id$", "moved for tokens"),
    "order 1 x order 1": (r"$A^{h_q} \otimes A^{h_k}$", "moved for moved"),
}
"The four groups of terms of an attention score: the formula, and the query and the key in words."
STRIPE = "order 0 x order 1"
"The group that has the stripe of an induction head in the paper."


@figure(
    "framework/two-layers",
    "The logits of a deeper model, by how many heads a path passes",
    "Framework, Path expansion of logits (F17)",
    "direct path, heads and virtual heads sum to the logits",
    layers=2,
    identity=True,
)
def two_layers(model: GPT) -> Finding:
    """The direct path, individual heads and virtual heads: three groups of terms (one more for each
    further layer) that sum to the logits."""
    tokens = prompt(model)
    found = expansion.by_order(model, tokens)
    lines = [
        rf"${ONE_LAYER}$",
        r"$\quad + \sum_{h_2, h_1} (A^{h_2} A^{h_1}) \otimes "
        r"(W_U W_{OV}^{h_2} W_{OV}^{h_1} W_E)" + (r" + \ldots$" if len(found) > 3 else "$"),
    ]
    return Finding(
        adds_up(found.attrs["error"], found.attrs["largest"]),
        sizes(found, "the groups", "the logits"),
        "Each cell is the root mean square, over the vocabulary, of the part of a group of terms "
        f"in the logits at a token, less its mean. {NOTE} A large term may be of little use: see "
        "the figure of term importance. The test: the groups sum to the logits.",
        lambda: terms(model, tokens, found, lines),
    )


@figure(
    "framework/qk-expansion",
    "Attention scores by path of query and of key",
    "Framework, Path expansion of attention scores (F18)",
    "the stripe of an induction head is in the term of the token with what the previous-token "
    "head moved, Id x A^h",
    layers=2,
)
def qk_expansion(model: GPT) -> Finding:
    """The scores of a head of layer 1 as four groups. The query is a token or the output of heads
    of layer 0, and so is the key. In the paper the stripe of an induction head is in the group of a
    token as query and a head's output as key (K-composition)."""
    tokens = prompt(model)
    parts = {str(at): expansion.prefix_matching_by_term(model, at) for at in induction_heads(model)}
    shares = {at: part.sel(term=STRIPE) / part.attrs["whole"] for at, part in parts.items()}
    head = f"L1H{int(attention.prefix_matching(model)[1].values.argmax())}"
    found = expansion.score_terms(model, tokens, head)
    whole = found.sum("term")
    error, largest = found.attrs["error"], float(abs(whole).max())
    spread = {str(panel.term.values): _spread(panel.values) for panel in found}
    said = ", ".join(f"{GROUPS[term][1]} {size:.1f}" for term, size in spread.items())
    told = "; ".join(_use(at, part) for at, part in parts.items()) or LACKING

    def picture() -> Picture:
        limit = max(float(abs(found).max()), largest, 1e-9)
        attrs = {"bounds": (-limit, limit), "long_name": "score before the softmax"}
        figure, axes = plots.grid(1, len(found) + 1, (1.75, 2.2))
        hidden = np.triu(np.ones(whole.shape, dtype=bool), 1)
        titles = ["\n".join(GROUPS[term]) for term in spread] + [f"sum: scores\nof {head}"]
        for i, (ax, panel) in enumerate(zip(axes[0], [*found, whole], strict=True)):
            shown = panel.where(~hidden).drop_vars("term", errors="ignore").assign_attrs(attrs)
            plots.heatmap(shown, ax, titles[i], bar=i == len(found))
            ax.set(xlabel="source", ylabel="destination" if i == 0 else "", xticks=[], yticks=[])
            ax.title.set_fontsize(9)
        labels = [plots.literal(plots.show_token(word)) for word in words_of(model, tokens)]
        axes[0, 0].set_yticks(range(len(labels)), labels, fontsize=6)
        return figure

    return Finding(
        all(
            float(share.sel(use="alone")) > 0.5 > float(share.sel(use="without"))
            for share in shares.values()
        )
        if shares
        else None,
        f"{told}; the groups of {head} sum to its scores, with an error of at most {error:.0e} of "
        f"scores up to {largest:.1f}; their spread over sources is {said}",
        "The attention scores of the head of layer 1 with the most prefix matching, as four groups "
        "of terms, and their sum. A token stands for itself; moved stands for the output of an "
        f"earlier head. {NOTE} Spread: the standard deviation over sources, in the mean over "
        "destinations; the softmax depends on differences between sources alone. The test: on "
        "random repeated tokens, in every induction head, the scores of the group "
        f'"{GROUPS[STRIPE][1]}" alone give more than half of the head\'s prefix matching, and the '
        "other groups together give less than half. The key of that group passes one earlier head, "
        "whichever it is.",
        picture,
    )


def _use(head: str, part: DataArray) -> str:
    """The prefix matching of each group of terms of a head, in words."""
    groups = "; ".join(
        f"{words} {float(part.sel(term=term, use='alone')):.2f} alone, "
        f"{float(part.sel(term=term, use='without')):.2f} without"
        for term, (_, words) in GROUPS.items() if term in part["term"].values
    )  # fmt: skip
    return f"prefix matching of {head} {part.attrs['whole']:.2f} ({groups})"


def _spread(term: np.ndarray) -> float:
    return float(np.mean([row[: i + 1].std() for i, row in enumerate(term) if i > 0]))
