"""Skip-trigram bugs: one head cannot raise an out token at one of its destinations only.

For one source f1(destination, source) f2(source, out) has rank one. So "keep ... in mind" and "keep
... at bay" imply "keep ... in bay" and "keep ... at mind". (Elhage et al. 2021, "Skip-trigram
bugs",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import torch
from pandas import DataFrame
from xarray import DataArray

from analyses.heads.skip_trigrams.effects import circuits_of, product, single_tokens, strings
from analyses.heads.skip_trigrams.splits import split_tokens
from analyses.labelled import to_numpy, words_of
from circuits.model import GPT, AnyHead
from circuits.model import head as head_of


def bug_grid(
    model: GPT,
    head: AnyHead,
    source: str | int,
    *,
    destinations: Sequence[str | int],
    outs: Sequence[str | int],
) -> DataArray:
    """max(QK, 0) * OV of one source at one head, (destination, out): a column `qk` times a row
    `ov`, which are also coordinates. It has rank one, so it cannot prefer one pairing of
    destinations and outs.

    The mean over keys is subtracted from QK, the mean over outs from OV. ValueError for a text that
    is not one token, and for empty destinations or outs.
    """
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        token = single_tokens(model, [source])
        at, raised = single_tokens(model, destinations), single_tokens(model, outs)
        qk = QK[at, :].columns(token)[:, 0]
        ov = OV.rows(token)[0, raised]
    label, word = head_of(model.cfg, head), words_of(model, token)[0]
    return DataArray(
        to_numpy(product(qk[:, None], ov[None])),
        dims=("destination", "out"),
        coords={
            "destination": words_of(model, at),
            "out": words_of(model, raised),
            "qk": ("destination", to_numpy(qk)),
            "ov": ("out", to_numpy(ov)),
        },
        name="bug_grid",
        attrs={
            "long_name": f"{word!r} at {label}: QK score x OV effect",
            "source": word,
            "head": str(label),
        },
    )


def spelling_grid(model: GPT, head: AnyHead, source: str, *, n: int = 5) -> DataArray:
    """`bug_grid` of a split word as the source, with the first pieces of n split words as
    destinations and their second pieces as outs, so that the diagonal spells words. The words are
    the source and the n - 1 words (or fewer) with the largest scores.

    Two coordinates (destination, out) come from the tokenizer. `spells` is True if the two pieces
    make a word of the vocabulary. `forced` is True for a cell that spells no word, if its row and
    its column each have a cell above 0 that spells one: one head cannot have these two cells
    without the forced cell. ValueError for a source that is not a split word.
    """
    words = split_tokens(model)
    if source not in set(words.source):
        raise ValueError(f"{source!r} is no word that splits; there are {len(words)}")
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        token = single_tokens(model, [source])
        qk = QK.columns(token)[:, 0][single_tokens(model, words.destination)]
        ov = OV.rows(token)[0][single_tokens(model, words.out)]
        words["score"] = (product(qk, ov) * (ov > 0)).tolist()
    words["own"] = words.source == source
    ranked = words.sort_values(["own", "score"], ascending=False, kind="stable")
    ranked = ranked.drop_duplicates("destination").drop_duplicates("out").head(n)
    grid = bug_grid(
        model, head, source, destinations=list(ranked.destination), outs=list(ranked.out)
    )
    known = set(strings(model))
    spells = np.array([[f" {a}{b}" in known for b in ranked.out] for a in ranked.destination])
    right = spells & (grid.values > 0)
    forced = right.any(1, keepdims=True) & right.any(0, keepdims=True) & ~spells
    dims = ("destination", "out")
    return grid.assign_coords(spells=(dims, spells), forced=(dims, forced))


def bugs(
    model: GPT, head: AnyHead, source: str | int, right: Sequence[tuple[str | int, str | int]]
) -> DataFrame:
    """The bugs of one head for the `right` skip-trigrams (destination, out) of one source: at each
    destination the outs of the other pairs are wrong. Smallest margin first.

    `margin` = max(QK, 0) (OV of the right out - OV of the wrong out). For two right pairs it is at
    most 0 at one destination or both. A margin of 0 means that the head does not distinguish the
    outs. ValueError for fewer than two pairs.
    """
    pairs = list(dict.fromkeys(right))
    if len(pairs) < 2:
        raise ValueError(f"a bug needs two right pairs (destination, out) or more, got {pairs}")
    destinations, outs = ([pair[i] for pair in pairs] for i in (0, 1))
    grid = bug_grid(model, head, source, destinations=destinations, outs=outs)
    rows = [
        {
            "source": grid.attrs["source"],
            "destination": str(grid.destination.values[i]),
            "right": str(grid.out.values[i]),
            "wrong": str(grid.out.values[j]),
            "right_score": float(grid[i, i]),
            "wrong_score": float(grid[i, j]),
            "margin": float(grid[i, i] - grid[i, j]),
        }
        for i, j in permutations(range(len(pairs)), 2)
        if (destinations[i], outs[j]) not in pairs
    ]
    columns = ["source", "destination", "right", "wrong", "right_score", "wrong_score", "margin"]
    return DataFrame(rows, columns=columns).sort_values("margin", ignore_index=True, kind="stable")
