"""The samples of the verdicts: held-out windows, intervals, heads by their role, and one run on our
story."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import plots, prompts
from analyses.heads import attention, logit_effects, masks
from analyses.labelled import interval, to_numpy
from analyses.papers.figures.record import Picture
from analyses.prompts import passages
from circuits.hooks import Cache
from circuits.model import GPT, Head

LENGTH = 192
"The number of tokens of a held-out window."
STORY = 128
"The number of tokens of our story that are shown."
LACKING = (
    f"no head has prefix matching above {attention.THRESHOLD} on random repeated tokens, so there "
    "is no induction head"
)


@dataclass(frozen=True)
class Reading:
    """One run on the story, and the head of a later layer with the most prefix matching."""

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
        """The destination and the source of the strongest prefix match before the last token."""
        match = masks.to_successors(self.tokens)[0, :-1, :-1]
        best = int((self.pattern[:-1, :-1] * match).argmax())
        return divmod(best, match.shape[1])

    def logit_effect(self) -> Float[Tensor, " dest"]:
        """The part that the head adds to the logit of the token that really follows, less the part
        that it adds to the mean logit."""
        effects = logit_effects.by_source(self.model, self.tokens)
        return torch.from_numpy(effects[self.layer, self.head].sum("src").values)

    def strips(self, strips: Sequence[tuple[str, Tensor, float, float, tuple[int, ...]]]
               ) -> Picture:  # fmt: skip
        """Draw strips of the story, one above the other: (title, values, low, high, framed)."""
        figure, axes = plots.grid(len(strips), 1, (9.4, 1.15))
        for ax, (title, values, low, high, framed) in zip(axes[:, 0], strips, strict=True):
            named = DataArray(to_numpy(values), dims="token", attrs={"bounds": (low, high)})
            plots.text(named, self.words, ax, title, framed=framed)
        return figure


def windows(model: GPT, n: int) -> Int[Tensor, "window pos"]:
    """The first n held-out windows. For a model that reads no text, random tokens said twice."""
    if model.tokenizer is None:
        return prompts.repeated(model, batch=min(n, 16))
    return passages.held_out(model, min(LENGTH, model.cfg.n_ctx))[:n]


def induction_heads(model: GPT) -> list[Head]:
    """The heads with prefix matching above attention.THRESHOLD, best first."""
    score = attention.prefix_matching(model).values
    found = [Head(int(layer), int(head)) for layer, head in zip(*(score > attention.THRESHOLD)
             .nonzero(), strict=True)]  # fmt: skip
    return sorted(found, key=lambda at: -score[at.layer, at.head])


def ends(values: Float[np.ndarray, " example"]) -> tuple[float, float]:
    """The ends of the 95% interval of a mean over examples."""
    low, high = interval(torch.tensor(values), torch.ones(len(values)))
    return float(low), float(high)


def previous_token_head(model: GPT) -> Head:
    """The head of layer 0 that attends most to the token before."""
    return Head(0, int(attention.previous_token(model)[0].values.argmax()))


def story(model: GPT) -> Int[Tensor, "1 pos"]:
    """The beginning of our story: STORY tokens, or the length of the shortest passage."""
    return passages.tokens(model, min(STORY, passages.tokens(model).shape[1]))[:1]


def read_story(model: GPT) -> Reading:
    """Run the model on the story, and find the head after layer 0 with the most prefix matching."""
    tokens = story(model)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    later = attention.prefix_matching(model)[1:]
    layer, head = divmod(int(later.values.argmax()), model.cfg.n_heads)
    return Reading(model, tokens, cache, layer + 1, head)
