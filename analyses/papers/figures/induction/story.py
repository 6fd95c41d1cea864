"""Induction heads, Argument 3, token by token: our story without its induction heads."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses import plots
from analyses.causal import ablation
from analyses.labelled import to_numpy
from analyses.papers.figures.framework.samples import (
    LACKING,
    induction_heads,
    previous_token_head,
)
from analyses.papers.figures.induction.tokens import matches
from analyses.papers.figures.induction.without_heads import (
    OTHERS,
    Sets,
    losses_without,
    rise_on_repeats,
)
from analyses.papers.figures.record import Finding, Picture, figure
from analyses.plots import html_tables, html_text
from analyses.prompts import passages
from circuits.model import GPT, Head, components

PAGE = "induction-story-without-heads.html"
SHOWN = 118
"The number of tokens of the story in the picture; the page has all that fit into the context."
SCALE = 5.0
"The rise of the loss at which a colour is full, in nats."
MORE, WINDOWS, DRAWS = 0.3, 64, 3
"The least nats that right repeats lose more than others; held-out windows; control sets."
COLOURS = (
    f"Blue: the loss rises without the heads, so they help there; red: it falls; full at {SCALE:g} "
    "nats. Framed: the token completes a repeat, for the same token followed an earlier copy of "
    "the token before it."
)
Titled = Mapping[str, Float[np.ndarray, " token"]]
"The rise of the loss of each token, by a title that names the silent heads."


@figure(
    "induction/story-without-heads",
    "The story without induction heads, token by token",
    "Induction heads, Argument 3 (beside O11, which has means alone)",
    "ablating induction heads takes in-context learning away",
)
def story_without_heads(model: GPT) -> Finding:
    """The rise of the loss of each token of our story when all induction heads are silent. The
    claim: it rises where the text repeats itself. The control silences as many other heads of the
    same layers."""
    heads = induction_heads(model)
    sets = {"together": list(map(str, heads))} | others(model, heads)
    if not heads or len(sets) == 1:
        lacks = "the layers of the induction heads have no other head for a control"
        return Finding(None, lacks if heads else LACKING, _caption(), None)
    found = rise_on_repeats(model, sets, WINDOWS)
    alone = {head: [head] for head in sets["together"]} if len(heads) > 1 else {}
    shown = {"together": sets["together"], "previous": [str(previous_token_head(model))],
             "others": sets["others 1"]}  # fmt: skip

    def picture() -> Picture:
        tokens = _story(model, SHOWN)
        rises = titled(model, tokens, shown)
        figure, axes = plots.grid(len(rises), 1, (9.6, 1.5))
        for ax, (title, rise) in zip(axes[:, 0], rises.items(), strict=True):
            values = DataArray(np.nan_to_num(rise), dims="token", attrs={"bounds": (-SCALE, SCALE)})
            plots.text(values, model.to_str_tokens(tokens[0]), ax, title, framed=_right(tokens))
        return figure

    return Finding(
        *_verdict(found, sets),
        _caption(),
        picture,
        lambda: html_tables.fragment(page=PAGE, words="The whole story, with the number of each "
                                     "token, also without each induction head alone"),
        lambda: {PAGE: _page(model, shown | alone)},
    )  # fmt: skip


def others(model: GPT, heads: Sequence[Head]) -> Sets:
    """Control sets: as many other heads of the same layers, or all others if a layer has fewer,
    drawn DRAWS times at random. Empty if no layer has another head."""
    rng, found = np.random.default_rng(0), {}
    for draw in range(DRAWS):
        names: list[str] = []
        for layer in sorted({head.layer for head in heads}):
            free = [head for head in range(model.cfg.n_heads) if Head(layer, head) not in heads]
            wanted = sum(head.layer == layer for head in heads)
            drawn = sorted(rng.permutation(free)[:wanted].tolist())
            names += [str(Head(layer, head)) for head in drawn]
        if names and names not in found.values():
            found[f"others {draw + 1}"] = names
    return found


def titled(model: GPT, tokens: Int[Tensor, "1 pos"], sets: Sets) -> Titled:
    """The rise of the loss of each token without each set, NaN for the first token. Each set comes
    with both kinds of ablation, or once if no later layer has patterns, for then both are the
    same."""
    at = torch.arange(tokens.shape[1] - 1)
    whole, without = losses_without(model, tokens, sets, (torch.zeros_like(at), at))
    rises = torch.nn.functional.pad(without - whole, (1, 0), value=torch.nan)
    found = {}
    for (name, heads), both in zip(sets.items(), rises, strict=True):
        first = min(components.head(model.cfg, head).layer for head in heads)
        same = first == model.cfg.n_layers - 1
        for kind, rise in zip(ablation.KINDS, both, strict=True):
            if same and kind == "full":
                continue
            words = (
                "in the last layer, so both kinds of ablation are the same"
                if same
                else f"{kind} ablation"
            )
            title = f"Without {', '.join(heads)}: {WORDS.get(name, 'a single head')}; {words}"
            found[title] = to_numpy(rise)
    return found


WORDS = {
    "together": "all induction heads together",
    "previous": "the previous-token head of layer 0",
    "others": "as many other heads",
}
"The words for the sets of heads that are shown; other sets are single heads."


def _verdict(found: Dataset, sets: Sets) -> tuple[bool, str]:
    full, held = (found.sel(set="together", ablation=kind) for kind in ablation.KINDS)
    drawn = [name for name in sets if name != "together"]
    luck = found.mean_rise.sel(set=drawn, ablation="pattern-preserving")
    rise = float(held.mean_rise)
    passes = rise >= MORE and held.low > 0 and full.low > 0 and float(luck.max()) < 0.5 * rise
    listed = ", ".join(f"{value:+.2f} ({', '.join(sets[name])})"
                       for name, value in zip(drawn, luck.values, strict=True))  # fmt: skip
    return bool(passes), (
        f"without {', '.join(sets['together'])} together, right repeats of held-out text lose "
        f"{rise:+.2f} nats more than other tokens ({held.low:+.2f} to {held.high:+.2f}; in full "
        f"{full.mean_rise:+.2f}, {full.low:+.2f} to {full.high:+.2f}); without other heads of the "
        f"same layers they lose {listed}"
    )


def _caption() -> str:
    return (
        "Each strip is our story: the rise of the loss of each token without some heads. "
        f"{COLOURS} Full ablation lets later heads react; pattern-preserving ablation keeps their "
        "patterns. The previous-token head is no induction head; it shows the difference between "
        f"the two kinds of ablation. The test is on {WINDOWS} windows of held-out text. Without "
        f"all induction heads together and with patterns held, right repeats lose at least {MORE} "
        f"nats more than {OTHERS} other tokens of the window, with the interval above 0; with full "
        "ablation the interval is above 0 too. Without as many other heads of the same layers, "
        f"drawn {DRAWS} times, right repeats lose less than half of this each time, with patterns "
        "held."
    )


def _story(model: GPT, length: int) -> Int[Tensor, "1 pos"]:
    return model.to_tokens(passages.passage("story"))[:, : min(length, model.cfg.n_ctx)]


def _right(tokens: Int[Tensor, "1 pos"]) -> list[int]:
    return (matches(tokens)[0][0].nonzero()[:, 0] + 1).tolist()


def _page(model: GPT, sets: Sets) -> str:
    """The page of the whole story, once for each set of heads and each kind of ablation."""
    tokens = _story(model, model.cfg.n_ctx)
    parts = [
        html_text.passage(rise, model.to_str_tokens(tokens[0]), caption=f"{title}.", scale=SCALE,
                          unit="nats", framed=_right(tokens))
        for title, rise in titled(model, tokens, sets).items()
    ]  # fmt: skip
    note = f"{COLOURS.replace('red', 'orange')} Point at a token to read the number."
    return html_tables.page("The story without some heads, token by token", *parts, note=note)
