"""Tables of all heads: copied words, the largest skip-trigrams, and brackets.

(Elhage et al. 2021, "Skip-trigrams", https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from jaxtyping import Int
from pandas import DataFrame, concat
from torch import Tensor

from analyses.heads.skip_trigrams.effects import (
    check_counts,
    each_head,
    entries,
    ranks,
    single_tokens,
    squared_norms,
    strings,
    tokens_where,
    top_words,
)
from analyses.heads.skip_trigrams.kinds import triples
from analyses.labelled import words_of
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, every_head

BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}


def copying_table(model: GPT, *, top: int = 5) -> DataFrame:
    """The clearest copying skip-trigram of each head.

    The source is the word (a space and four letters or more) with the largest `own_score`: its
    effect on its own logit, in standard deviations of its effects. `destinations` are the queries
    with the largest QK, `outs` the tokens with the largest OV, each as [(token, score), ...].
    `own_rank` is the rank of the source among its outs, 0 if it raises itself most. ValueError for
    a model without a tokenizer, and for a vocabulary without such a word.
    """
    check_counts(model, top=top)

    def is_word(string: str) -> bool:
        return string.startswith(" ") and string[1:].isalpha() and len(string) > 4

    words = tokens_where(model, is_word, "whole words (a space and four letters or more)")
    with torch.no_grad():
        return DataFrame(
            [{"head": str(at), **_copied(model, QK, OV, words, top)}
             for at, QK, OV in each_head(model)]
        )  # fmt: skip


def _copied(
    model: GPT, QK: FactoredMatrix, OV: FactoredMatrix, words: Int[Tensor, " word"], top: int
) -> dict[str, object]:
    spread = (squared_norms(OV, words) / (OV.rdim - 1)).clamp(min=1e-30).sqrt()
    own, best = (entries(OV, words, words) / spread).max(0)
    source = words[best][None]
    return {
        "source": words_of(model, source)[0],
        "destinations": top_words(model, QK.columns(source).T, top)[0],
        "outs": top_words(model, OV.rows(source), top)[0],
        "own_rank": int(ranks(OV, source, source)),
        "own_score": float(own),
    }


def strongest(
    model: GPT, *, n: int = 24, per_head: int = 400, pattern: str | None = None
) -> DataFrame:
    """The n largest skip-trigrams of all heads, largest first, one for each head and source, with
    the columns of `triples` and `head`. Only the `per_head` largest of each head count, and only
    those with this `pattern` if one of PATTERNS is given."""
    parts = []
    for at in every_head(model.cfg):
        found = triples(model, at, n=per_head)
        found.insert(0, "head", str(at))
        if pattern is not None:
            found = found.query("pattern == @pattern")
        parts.append(found.drop_duplicates("source"))
    columns = ["head", "source", "destination", "out", "qk", "ov", "score", "pattern"]
    if not parts:
        return DataFrame(columns=columns)
    joined = concat(parts, ignore_index=True)
    return joined.sort_values("score", ascending=False, ignore_index=True, kind="stable").head(n)


def brackets(model: GPT) -> DataFrame:
    """The effect of each opening bracket on its closing bracket, with a row per head and bracket:
    columns `head`, `source`, `out`, `ov` and `out_rank`, the number of tokens raised more.

    By chance a rank is uniform from 0 to d_vocab - 1. Brackets that are not tokens are left out.
    """
    known, rows = set(strings(model)), []
    pairs = [pair for pair in BRACKETS.items() if set(pair) <= known]
    with torch.no_grad():
        for at, _, OV in each_head(model) if pairs else []:
            opening, closing = (single_tokens(model, side) for side in zip(*pairs, strict=True))
            raised = entries(OV, opening, closing).tolist()
            above = ranks(OV, opening, closing).tolist()
            rows += [[str(at), *row] for row in zip(*zip(*pairs, strict=True), raised, above,
                                                    strict=True)]  # fmt: skip
    return DataFrame(rows, columns=["head", "source", "out", "ov", "out_rank"])
