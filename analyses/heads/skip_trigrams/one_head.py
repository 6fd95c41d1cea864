"""Tables of one head: its strongest sources, the skip-trigrams of one source, the largest entries
of its circuits, and the tokens that a positional head raises.

(Elhage et al. 2021, "Skip-trigrams" and its dumps of heads; "Positional heads",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from typing import Literal

import torch
from pandas import DataFrame

from analyses.heads.skip_trigrams.effects import (
    best_of_sources,
    check_counts,
    circuits_of,
    product,
    single_tokens,
    squared_norms,
    tokens_where,
    top_words,
)
from analyses.labelled import words_of
from circuits.matrices import Progress
from circuits.model import GPT, AnyHead


def table(model: GPT, head: AnyHead, source: str | int, *, top: int = 5) -> DataFrame:
    """The skip-trigrams of one source token at one head, largest score first: its `top`
    destinations by QK, each with its `top` outs by OV.

    Columns `source`, `destination`, `out`, `qk`, `ov`, `score`; the docstring of the package
    defines them. ValueError for a source that is not one token.
    """
    check_counts(model, top=top)
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        token = single_tokens(model, [source])
        qk, destinations = QK.columns(token)[:, 0].topk(top)
        ov, outs = OV.rows(token)[0].topk(top)
    rows = DataFrame(
        {
            "source": words_of(model, token)[0],
            "destination": words_of(model, destinations.repeat_interleave(top)),
            "out": words_of(model, outs.repeat(top)),
            "qk": qk.repeat_interleave(top).tolist(),
            "ov": ov.repeat(top).tolist(),
            "score": product(qk[:, None], ov[None]).flatten().tolist(),
        }
    )
    return rows.sort_values("score", ascending=False, ignore_index=True, kind="stable")


def top_entries(
    model: GPT,
    head: AnyHead,
    which: Literal["OV", "QK"] = "OV",
    k: int = 20,
    *,
    progress: Progress | None = None,
) -> DataFrame:
    """The k largest entries of a head's full circuit, exact, largest first. The mean of each row is
    subtracted.

    Columns `source`, `out`, `score` for OV, `destination`, `source`, `score` for QK. The circuit is
    multiplied out in blocks and never held. ValueError for another `which`.
    """
    if which not in ("OV", "QK"):
        raise ValueError(f"a head has circuits 'OV' and 'QK', got {which!r}")
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        found = (QK if which == "QK" else OV).top(k, progress=progress)
    row, column = ("destination", "source") if which == "QK" else ("source", "out")
    return DataFrame(
        {
            row: words_of(model, found.rows),
            column: words_of(model, found.columns),
            "score": found.values.tolist(),
        }
    )


def head_dump(
    model: GPT,
    head: AnyHead,
    *,
    sources: int = 12,
    top: int = 6,
    blanks: int | None = None,
    block_bytes: int = 2**26,
) -> DataFrame:
    """The sources of one head with the largest skip-trigrams, largest first: columns `source`,
    `destinations` (top QK) and `outs` (top OV), each [(token, score), ...], and `score`, the score
    of the largest triple. With `blanks`, no more sources than this are whitespace alone. ValueError
    unless `sources` and `top` are from 1 to d_vocab."""
    check_counts(model, sources=sources, top=top)
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        score, tokens = best_of_sources(QK, OV, block_bytes).sort(descending=True, stable=True)
        if blanks is not None:
            blank = torch.tensor([not word.strip() for word in words_of(model, tokens)])
            kept = ~blank | (blank.cumsum(0) <= blanks)
            score, tokens = score[kept], tokens[kept]
        score, tokens = score[:sources], tokens[:sources]
        return DataFrame(
            {
                "source": words_of(model, tokens),
                "destinations": top_words(model, QK.columns(tokens).T, top),
                "outs": top_words(model, OV.rows(tokens), top),
                "score": score.tolist(),
            }
        )


def positional_table(model: GPT, head: AnyHead, *, sources: int = 6, top: int = 5) -> DataFrame:
    """The tokens that a positional head raises, by the source token: columns `source`, `outs` (top
    OV, [(token, effect), ...]) and `peak`, the largest effect in standard deviations of its row.

    The sources are the words (three letters or more, with or without a space before) with the
    largest peaks, largest first. QK is not read. ValueError unless `sources` and `top` are from 1
    to d_vocab, and for a vocabulary without such words.
    """
    check_counts(model, sources=sources, top=top)

    def is_word(string: str) -> bool:
        return string.strip().isalpha() and len(string.strip()) > 2

    with torch.no_grad():
        _, OV = circuits_of(model, head)
        words = tokens_where(model, is_word, "words of three letters or more")
        spread = (squared_norms(OV, words).clamp(min=1e-30) / OV.rdim).sqrt()
        highest = torch.cat([OV.rows(part).amax(-1) for part in words.split(256)])
        peak, at = (highest / spread).topk(min(sources, len(words)))
        return DataFrame(
            {
                "source": words_of(model, words[at]),
                "outs": top_words(model, OV.rows(words[at]), top),
                "peak": peak.tolist(),
            }
        )
