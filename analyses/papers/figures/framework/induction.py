"""Framework paper, "Induction heads": figures on a story of ours and on random tokens (I1, F20, I2,
F21, F22)."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import explorer, plots, prompts
from analyses.heads import attention, copying, masks
from analyses.papers.figures.framework import samples
from analyses.papers.figures.framework.samples import LACKING, induction_heads
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from analyses.plots import html_tables
from circuits import scores
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

STORY, REPEATS = "framework-story.html", "framework-repeats.html"
"The pages of all heads on the tokens of I1 and I2."
CORNER = 0.5
"A head stands in the corner if both coordinates are above this."


@figure(
    "framework/story",
    "A story with names",
    "Framework, Two-layer attention-only transformers (I1)",
    "induction heads attend to what followed the same token before, where it can be found",
)
def story(model: GPT) -> Finding:
    """Value-weighted patterns of all heads on the beginning of a story. Induction heads attend
    where a name comes again."""
    tokens = samples.story(model)
    score = attention.prefix_matching(model, tokens)
    start = attention.prefix_matching(at_initialisation(model), tokens)
    best, chance = int(score.values.argmax()), score.attrs["chance"]
    roles, able = attention.taxonomy(model).role, bool(induction_heads(model))
    role = str(roles.values.ravel()[best])
    return Finding(
        float(score.max()) > 3 * chance and role == "induction" if able else None,
        f"{score.label.values.ravel()[best]} (by its scores: {role}) puts {float(score.max()):.2f} "
        "of its attention on the tokens that followed the same token before (uniform: "
        f"{chance:.2f}, the best head at initialisation {float(start.max()):.2f})",
        f"The patterns of all heads on the first {tokens.shape[1]} tokens of a story in which "
        "names of several tokens return. Each entry is attention times the size of the value that "
        "it fetches, scaled to the head's largest entry. Frames: the role of each head by its "
        "scores. The test: the head that attends most to the tokens that followed the same token "
        "before gives them more than three times the share of uniform attention, and is an "
        "induction head by its scores on random tokens.",
        lambda: patterns_by_role(model, tokens, roles),
        lambda: _linked(STORY),
        lambda: {STORY: _explorer(model, tokens, "A story with names")},
    )


@figure(
    "framework/induction-head",
    "An induction head on names",
    "Framework, Induction heads (F20)",
    "the head looks back to what followed the same token, and raises it",
    layers=2,
)
def induction_head(model: GPT) -> Finding:
    """The attention of one induction head from one token of a text, and the change that the head
    makes to the logit of each token of the text. It should raise the rest of names that come
    again."""
    read = samples.read_story(model)
    dest, src = read.clearest()
    effect = read.logit_effect()
    high, looked = float(effect.abs().max()), float(read.pattern[dest, src])
    right = _induction_is_right(read.tokens[0])
    ours, rest = float(effect[:-1][right].mean()), float(effect[:-1][~right].mean())
    return Finding(
        looked > attention.THRESHOLD and ours > rest + 1 if induction_heads(model) else None,
        f"{read.label} puts {looked:.2f} of its attention from {read.words[dest]!r} on "
        f"{read.words[src]!r}, and adds {ours:+.2f} to the right logit where the earlier "
        f"continuation is right ({int(right.sum())} places), {rest:+.2f} elsewhere",
        "Above: the attention of the head with the most prefix matching, from the token with its "
        "clearest match (framed). Below: the part that this head adds to the logit of each token "
        "of the text, as seen from the token before, less the part that it adds to the mean of all "
        f"logits. The test: more than {attention.THRESHOLD} of the attention is on the match, and "
        "the head adds more than 1 logit more where the earlier continuation is right than "
        "elsewhere.",
        lambda: read.strips([
            (f"Attention of {read.label} from the framed token", read.pattern[dest], 0.0, 1.0,
             (dest,)),
            (f"Effect of {read.label} on the logit of each token (red: lowers, blue: raises, up to "
             f"{high:.1f})", effect.roll(1), -high, high, ()),
        ]),
    )  # fmt: skip


@figure(
    "framework/repeats",
    "Random tokens, three times",
    "Framework, Induction heads on random repeated tokens (I2)",
    "induction heads attend to the stripes",
)
def repeats(model: GPT) -> Finding:
    """Value-weighted patterns of all heads on 20 random tokens said three times. Induction heads
    show stripes at distances 19 and 39 below the diagonal."""
    n = min(20, (model.cfg.n_ctx - 1) // 3)
    tokens = prompts.random_tokens(model, n, batch=8, times=3)
    score = attention.prefix_matching(model, tokens)
    start = attention.prefix_matching(at_initialisation(model), tokens)
    best = int(score.values.argmax())
    return Finding(
        float(score.max()) > attention.THRESHOLD,
        f"{score.label.values.ravel()[best]} puts {score.values.max():.2f} of its attention on the "
        f"stripes (uniform: {score.attrs['chance']:.3f}), the best head at initialisation "
        f"{float(start.max()):.3f}",
        f"The patterns of all heads on {n} random tokens said three times. Each entry is attention "
        "times the size of the value that it fetches, scaled to the head's largest entry. The "
        f"stripes at distances {n - 1} and {2 * n - 1} below the diagonal are the tokens that "
        "followed the same token before. Frames: the role of each head by its scores. The test: "
        f"some head puts more than {attention.THRESHOLD} of its attention on the stripes, in the "
        "mean over eight rows of tokens.",
        lambda: patterns_by_role(model, tokens, attention.taxonomy(model).role),
        lambda: _linked(REPEATS),
        lambda: {REPEATS: _explorer(model, tokens[:1], f"{n} random tokens, three times")},
    )


@figure(
    "framework/key-tokens",
    "The tokens in an induction head's key",
    "Framework, How induction heads work (F21)",
    "the key that is found was made by the token before",
    layers=2,
)
def by_token(model: GPT) -> Finding:
    """One score of an induction head, split by the tokens whose information meets in it. The claim:
    the key is made of the token *before* the attended token."""
    read = samples.read_story(model)
    dest, src = read.clearest()
    with torch.no_grad():
        split = scores.by_token(model, read.cache, read.label, dest=dest, src=src)[0]
    query, key, words = split.sum(1), split.sum(0), read.words
    brings, seeks = int(key.argmax()), int(query.argmax())
    share = float(key[src - 1] / split.sum())

    def picture() -> Picture:
        high = float(torch.stack([query.abs().max(), key.abs().max()]).max())
        effect = read.logit_effect().roll(1)
        most = float(effect.abs().max())
        return read.strips([
            (f"The key at the framed token: the part of each token in the score (up to {high:.1f})",
             key, -high, high, (src,)),
            ("The query at the framed token: the part of each token in the same score",
             query, -high, high, (dest,)),
            (f"Effect of {read.label} on the logit of each token (up to {most:.1f})", effect,
             -most, most, (dest + 1,)),
        ])  # fmt: skip

    return Finding(
        bool(
            brings == src - 1
            and seeks == dest
            and share > 0.5
            and read.pattern[dest, src] > attention.THRESHOLD
        )
        if induction_heads(model)
        else None,
        f"the score of {read.label} from {words[dest]!r} for {words[src]!r} is "
        f"{float(split.sum()):.1f}; the largest part of the key is from {words[brings]!r}, "
        f"{src - brings} before the attended token, and the token just before it has {share:.0%} "
        f"of the score; the largest part of the query is from {words[seeks]!r}, {dest - seeks} "
        "before the current token",
        "Above and middle: one attention score before the softmax, split by the tokens of the key "
        "and by the tokens of the query. The score is a sum over pairs of tokens: the information "
        "of one token in the query times the information of the other in the key, directly or "
        "through the layers before (patterns and norms frozen). Below: the part that the head adds "
        "to the logit of each token. Red takes away, blue adds. The test: the largest part of the "
        "key is from the token just before the attended token, and more than half of the score; "
        "the largest part of the query is from the current token; and the head gives the attended "
        f"token more than {attention.THRESHOLD} of its attention.",
        picture,
    )


@figure(
    "framework/corner",
    "The induction corner",
    "Framework, How induction heads work (F22)",
    "induction heads stand in the extreme upper right corner",
    layers=2,
)
def corner(model: GPT) -> Finding:
    """The positivity of QK eigenvalues through a previous-token head against the positivity of OV
    eigenvalues, for every head of a later layer. The claim: induction heads stand in the upper
    right corner."""
    writer = samples.previous_token_head(model).head
    x, y, prefix = _corner_scores(model, writer)
    induction = (prefix > attention.THRESHOLD).values
    inside = induction & (x > CORNER).values & (y > CORNER).values
    others = _through_others(model, writer, induction)
    heads = zip(*(part.values[induction] for part in (x.label, x, y)), others, strict=True)
    where = ", ".join(f"{name} at ({a:.2f}, {b:.2f}), its median through other heads {c:.2f}"
                      for name, a, b, c in heads)  # fmt: skip

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (5.2, 4.2))
        plots.scatter(x, y, prefix, axes[0, 0], "trained")
        start = _corner_scores(at_initialisation(model), writer)
        plots.scatter(*start, ax=axes[0, 1], title="at initialisation")
        return figure

    return Finding(
        bool(inside[induction].all() and (others < CORNER).all()) if induction.any() else None,
        f"{inside.sum()} of {induction.sum()} induction heads have both scores over {CORNER} "
        f"({where or LACKING})",
        "Each point is a head of a later layer. To the right: its query seeks the token that it "
        f"stands on, through L0H{writer} (the head of layer 0 that attends most to the previous "
        "token). Upwards: it copies the token that it attends to. The colour is prefix matching on "
        "random tokens, which is measured and not read from weights. The test: every induction "
        f"head has both scores above {CORNER}, and the median of its first score through the other "
        "heads of layer 0 is below.",
        picture,
    )


def patterns_by_role(model: GPT, tokens: Int[Tensor, "batch pos"], roles: DataArray) -> Picture:
    """Value-weighted patterns of all heads on the first row, framed by the role of each head."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens[:1], names_filter=attention.is_pattern_or_value)
    weighted = [attention.value_weighted(cache["pattern", i], cache["v", i])[0]
                for i in range(model.cfg.n_layers)]  # fmt: skip
    axes = plots.attention(
        torch.cat(weighted),
        titles=[str(label) for label in roles.label.values.ravel()],
        colours=[plots.ROLE_COLOURS[str(role)] for role in roles.values.ravel()],
        columns=model.cfg.n_heads,
    )
    plots.role_legend(axes, roles)
    return picture_of(axes[0, 0])


def _induction_is_right(tokens: Int[Tensor, " pos"]) -> Tensor:
    """True where the next token followed an earlier copy of the current token, [pos-1]."""
    before = masks.to_successors(tokens[None])[0, :-1]
    return (before & (tokens[None, :] == tokens[1:, None])).any(-1)


def _corner_scores(model: GPT, writer: int) -> tuple[DataArray, DataArray, DataArray]:
    """QK positivity through L0H`writer`, OV positivity and prefix matching of later layers."""
    x = copying.composed_qk_score(model, (0, writer))
    x = x.assign_attrs(long_name=f"K-composed QK positivity through L0H{writer}")
    return x, copying.score(model)[1:], attention.prefix_matching(model)[1:]


def _through_others(
    model: GPT, writer: int, which: Bool[np.ndarray, "layer head"]
) -> Float[np.ndarray, " chosen"]:
    """The median over all heads of layer 0 but the writer: the QK positivity of some later
    heads."""
    others = [copying.composed_qk_score(model, (0, head)).values[which]
              for head in range(model.cfg.n_heads) if head != writer]  # fmt: skip
    return np.median(others, axis=0) if others else np.zeros(int(which.sum()))


def _linked(page: str) -> str:
    """The link from the report to a page of all heads."""
    return html_tables.fragment(page=page, words="Look at every head on these tokens: a page where "
                                "each token shows its attention")  # fmt: skip


def _explorer(model: GPT, tokens: Int[Tensor, "1 pos"], title: str) -> str:
    shape = f"{model.cfg.n_layers} layers x {model.cfg.n_heads} heads"
    return explorer.page(model, tokens, f"{title} ({shape})").html
