"""Framework paper, "Induction heads": what they do on text (I1, F20, F21), on a story of ours."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, logit_effects, masks
from analyses.labelled import to_numpy
from analyses.papers.figures.drawing import (
    FRAMEWORK,
    Drawing,
    Verdict,
    patterns_by_role,
    require_layers,
)
from analyses.prompts import passages
from circuits import scores
from circuits.ground_truth.controls import at_initialisation
from circuits.hooks import Cache
from circuits.model import GPT

Strip = tuple[str, Tensor, tuple[float, float], tuple[int, ...]]
LENGTH = 128
"Tokens of the story that are shown."


@dataclass(frozen=True)
class _Reading:
    """One run on the story, and the head that does most induction."""

    model: GPT
    tokens: Int[Tensor, "1 pos"]
    cache: Cache
    layer: int
    head: int

    @property
    def label(self) -> str:
        return f"L{self.layer}H{self.head}"

    @property
    def pattern(self) -> Float[Tensor, "dest src"]:
        return self.cache["pattern", self.layer][0, self.head]

    @property
    def words(self) -> list[str]:
        return self.model.to_str_tokens(self.tokens[0])

    def clearest(self) -> tuple[int, int]:
        """The destination and source of its strongest prefix match, not at the text's end."""
        match = masks.to_successors(self.tokens)[0, :-1, :-1]
        best = int((self.pattern[:-1, :-1] * match).argmax())
        return divmod(best, match.shape[1])

    def logit_effect(self) -> Float[Tensor, " dest"]:
        """What the head adds to the logit of the token that really follows, over the mean logit."""
        effects = logit_effects.by_source(self.model, self.tokens)
        return torch.from_numpy(effects[self.layer, self.head].sum("src").values)


def passage(model: GPT) -> Drawing:
    """I1, the first paragraph explorer: patterns of all heads on the beginning of a story,
    value-weighted. Induction heads show where names come again."""
    tokens = _story(model)
    figure, roles = patterns_by_role(model, tokens)
    score = attention.prefix_matching(model, tokens)
    control = attention.prefix_matching(at_initialisation(model), tokens)
    best, chance = int(score.values.argmax()), score.attrs["chance"]
    role = str(roles.values.ravel()[best])
    says = (
        f"paper: induction heads attend to what followed the same token before, where it can be "
        f"found; here {score.label.values.ravel()[best]} (by its scores: {role}) puts "
        f"{float(score.max()):.2f} of its attention there (uniform: {chance:.2f}, the best head at "
        f"initialisation {float(control.max()):.2f})"
    )
    return Drawing(
        figure,
        "A story with names",
        f"Framework, Two-layer attention-only transformers (I1), {FRAMEWORK}",
        "Attention times the size of the value it fetches, scaled to each head's largest entry; "
        f"the first {tokens.shape[1]} tokens of a story in which names of several tokens return.",
        Verdict(float(score.max()) > 3 * chance and role == "induction", says),
    )


def induction_head(model: GPT) -> Drawing:
    """F20: one induction head on text: where it looks from one token, and what it does to the
    logit of the token that follows, at every place. It raises the rest of names that come again."""
    read = _read(model)
    dest, src = read.clearest()
    effect = read.logit_effect()
    high = float(effect.abs().max())
    strips = [
        (f"Attention of {read.label} from the framed token", read.pattern[dest], (0.0, 1.0),
         (dest,)),
        (f"What {read.label} adds to the logit of each token (red: lowers, blue: raises, up to "
         f"{high:.1f})", effect.roll(1), (-high, high), ()),
    ]  # fmt: skip
    figure = _strips(read, strips)
    looked = float(read.pattern[dest, src])
    right = _induction_is_right(read.tokens[0])
    ours, rest = float(effect[:-1][right].mean()), float(effect[:-1][~right].mean())
    says = (
        f"paper: the head looks back to what followed the same token, and raises it; here "
        f"{read.label} puts {looked:.2f} of its attention from {read.words[dest]!r} on "
        f"{read.words[src]!r}, and adds {ours:+.2f} to the right logit where the earlier "
        f"continuation is right ({int(right.sum())} places), {rest:+.2f} elsewhere"
    )
    return Drawing(
        figure,
        "An induction head on names",
        f"Framework, Induction heads (F20), {FRAMEWORK}",
        "Above: where the head with the most prefix matching looks from the place of its clearest "
        "match. Below: how much it adds to the logit of the very token that stands there, as seen "
        "from the token before, over what it adds to the mean of all logits.",
        Verdict(looked > attention.THRESHOLD and ours > rest + 1, says),
    )


def by_token(model: GPT) -> Drawing:
    """F21, "How induction heads work": one score of an induction head, split by the tokens whose
    information meets in it. Its key is made of the token *before* the one it attends to."""
    read = _read(model)
    dest, src = read.clearest()
    with torch.no_grad():
        split = scores.by_token(model, read.cache, read.label, dest=dest, src=src)[0]
    query, key = split.sum(1), split.sum(0)
    high = float(torch.stack([query.abs().max(), key.abs().max()]).max())
    effect = read.logit_effect().roll(1)
    most = float(effect.abs().max())
    words = read.words
    strips = [
        (f"The key at the framed token: what each token brings to the score (up to {high:.1f})",
         key, (-high, high), (src,)),
        ("The query at the framed token: what each token brings to the same score",
         query, (-high, high), (dest,)),
        (f"What {read.label} adds to the logit of each token (up to {most:.1f})", effect,
         (-most, most), (dest + 1,)),
    ]  # fmt: skip
    brings, seeks = int(key.argmax()), int(query.argmax())
    share = float(key[src - 1] / split.sum())
    says = (
        f"paper: the key that is found was made by the token before; here, of the score of "
        f"{read.label} from {words[dest]!r} for {words[src]!r} ({float(split.sum()):.1f}), "
        f"{words[brings]!r} {_places(src - brings)} brings the most to the key, and the token "
        f"before {share:.0%}; {words[seeks]!r} {_places(dest - seeks)} brings the most to the query"
    )
    return Drawing(
        _strips(read, strips),
        "What an induction head's key is made of",
        f"Framework, How induction heads work (F21), {FRAMEWORK}",
        "The attention score before the softmax is a sum over pairs of tokens: what one brought to "
        "the query, with what the other brought to the key, directly or through the layer before "
        "(patterns and norms frozen). Red takes away, blue adds.",
        Verdict(
            brings == src - 1
            and seeks == dest
            and share > 0.5
            and float(read.pattern[dest, src]) > attention.THRESHOLD,
            says,
        ),
    )


def _story(model: GPT) -> Int[Tensor, "1 pos"]:
    return passages.tokens(model, min(LENGTH, passages.tokens(model).shape[1]))[:1]


def _read(model: GPT) -> _Reading:
    require_layers(model, 2, "induction heads")
    tokens = _story(model)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    later = attention.prefix_matching(model)[1:]
    layer, head = divmod(int(later.values.argmax()), model.cfg.n_heads)
    return _Reading(model, tokens, cache, layer + 1, head)


def _induction_is_right(tokens: Int[Tensor, " pos"]) -> Tensor:
    """Where the next token is one that followed the same token before: [pos-1], bool."""
    before = masks.to_successors(tokens[None])[0, :-1]
    return (before & (tokens[None, :] == tokens[1:, None])).any(-1)


def _strips(read: _Reading, strips: Sequence[Strip]) -> Figure:
    """Strips of the story, one above the other: (title, values, bounds, framed)."""
    figure, axes = plots.grid(len(strips), 1, (9.4, 1.15))
    for ax, (title, values, bounds, framed) in zip(axes[:, 0], strips, strict=True):
        named = DataArray(to_numpy(values), dims="token", attrs={"bounds": bounds})
        plots.text(read.words, named, ax, title, framed=framed)
    return figure


def _places(back: int) -> str:
    return "there" if back == 0 else f"{back} before"
