"""Whole heads at a glance: their strongest sources, their brackets, and what follows a place.

(Elhage et al. 2021, "Skip-trigrams" and its dumps of heads; "Positional heads",
https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from jaxtyping import Float, Int
from pandas import DataFrame, concat
from torch import Tensor

from analyses.heads.skip_trigrams.patterns import triples
from analyses.heads.skip_trigrams.scores import (
    circuits,
    circuits_of,
    product,
    tokens_of,
    vocabulary,
    words_of,
)
from circuits.matrices import blocks
from circuits.model import GPT, AnyHead, every_head

BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}


def head_dump(
    model: GPT, head: AnyHead, *, sources: int = 12, top: int = 6, block_bytes: int = 2**26
) -> DataFrame:
    """The sources of one head with the largest skip-trigrams, best first: columns `source`,
    `destinations` (top QK) and `outs` (top OV), each [(token, score), ...], and `score`, that of
    the best triple. ValueError unless `sources` and `top` are from 1 to d_vocab."""
    _require(model, sources=sources, top=top)
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        parts = blocks(QK.rdim, QK.ldim * QK.factors[0].element_size(), block_bytes)
        best = [product(QK.columns(part).amax(0), OV.rows(part).amax(-1)) for part in parts]
        score, tokens = torch.cat(best).topk(sources)
        qk, destinations = QK.columns(tokens).T.topk(top)
        ov, outs = OV.rows(tokens).topk(top)
    return DataFrame(
        {
            "source": words_of(model, tokens),
            "destinations": _lists(model, destinations, qk),
            "outs": _lists(model, outs, ov),
            "score": score.tolist(),
        }
    )


def strongest(model: GPT, *, n: int = 24, per_head: int = 400, copies: bool = True) -> DataFrame:
    """The n largest skip-trigrams of all heads, largest first, one for each head and source: the
    columns of `triples` and `head`. Only the first `per_head` of a head are looked through. With
    copies=False, only those of the pattern "other"."""
    parts = []
    for at in every_head(model.cfg):
        found = triples(model, at, n=per_head)
        found.insert(0, "head", str(at))
        if not copies:
            found = found.query("pattern == 'other'")
        parts.append(found.drop_duplicates("source"))
    columns = ["head", "source", "destination", "out", "qk", "ov", "score", "pattern"]
    if not parts:
        return DataFrame(columns=columns)
    joined = concat(parts, ignore_index=True)
    return joined.sort_values("score", ascending=False, ignore_index=True, kind="stable").head(n)


def brackets(model: GPT) -> DataFrame:
    """How far up each opening bracket raises the one that closes it, a row a head and bracket:
    columns `head`, `source`, `out`, `ov` and `out_rank`, the number of tokens raised more.

    By chance a rank is anything from 0 to d_vocab - 1. Brackets that are no token are left out.
    """
    text, rows = vocabulary(model), []
    known = set(words_of(model, torch.arange(text.size)))
    pairs = [pair for pair in BRACKETS.items() if set(pair) <= known]
    with torch.no_grad():
        _, each_OV = circuits(model)
        for at in every_head(model.cfg) if pairs else []:
            left, right = each_OV[at].pair
            tokens = [tokens_of(model, side) for side in zip(*pairs, strict=True)]
            for opening, closing in zip(*tokens, strict=True):
                effects = left[opening] @ right
                own = effects[closing]
                rank = int((effects > own).sum())
                rows.append([str(at), *words_of(model, torch.stack([opening, closing])),
                             float(own), rank])  # fmt: skip
    return DataFrame(rows, columns=["head", "source", "out", "ov", "out_rank"])


def positional_table(model: GPT, head: AnyHead, *, sources: int = 6, top: int = 5) -> DataFrame:
    """What a head that looks at one place makes of the token there: columns `source`, `outs` (top
    OV, [(token, effect), ...]) and `peak`, the largest effect in standard deviations of its row.

    The sources are the words (a space or none, and three letters or more) with the highest peaks,
    highest first; where it attends is not read. ValueError unless `sources` and `top` are from 1 to
    d_vocab, and for a vocabulary without such words.
    """
    _require(model, sources=sources, top=top)
    with torch.no_grad():
        _, OV = circuits_of(model, head)
        words = _words(model)
        left, right = OV.pair
        spread = ((left @ (right @ right.T)) * left).sum(-1).clamp(min=1e-30) / right.shape[1]
        parts = [OV.rows(part).amax(-1) for part in words.split(256)]
        peak, at = (torch.cat(parts) / spread[words].sqrt()).topk(min(sources, len(words)))
        ov, outs = OV.rows(words[at]).topk(top)
    return DataFrame(
        {
            "source": words_of(model, words[at]),
            "outs": _lists(model, outs, ov),
            "peak": peak.tolist(),
        }
    )


def _words(model: GPT) -> Int[Tensor, " word"]:
    strings = words_of(model, torch.arange(vocabulary(model).size))
    found = [i for i, s in enumerate(strings) if s.strip().isalpha() and len(s.strip()) > 2]
    if not found:
        raise ValueError("the vocabulary has no words of three letters or more")
    return torch.tensor(found, device=model.W_E.device)


def _lists(
    model: GPT, tokens: Int[Tensor, "row top"], values: Float[Tensor, "row top"]
) -> list[list[tuple[str, float]]]:
    return [
        list(zip(words_of(model, row), value.tolist(), strict=True))
        for row, value in zip(tokens, values, strict=True)
    ]


def _require(model: GPT, **counts: int) -> None:
    for name, count in counts.items():
        if not 1 <= count <= model.cfg.d_vocab:
            raise ValueError(f"{name} is from 1 to d_vocab={model.cfg.d_vocab}, got {count}")
