"""The abstract patterns of skip-trigrams, and a count of each among a head's largest skip-trigrams.

In `[b]...[a]->[b]` the out is the source. In `[ab]...[a]->[b]` destination and out together spell
the source. b' is similar to b. (Elhage et al. 2021, table of "primitive in-context learning",
https://transformer-circuits.pub/2021/framework/index.html)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from analyses.heads.skip_trigrams.effects import (
    best_of_sources,
    circuits_of,
    product,
    vocabulary,
)
from analyses.labelled import words_of
from circuits.matrices import FactoredMatrix
from circuits.model import GPT, AnyHead, Vocabulary, every_head

PATTERNS = ("[b]...[a]->[b]", "[ab]...[a]->[b]", "[b]...[a]->[b']", "[ab]...[a]->[b']", "other")
"The patterns. A triple has the first pattern in this order that fits."
ALIKE = 0.6
"The cosine of two embeddings above which tokens are similar; random ones reach 4 / sqrt(d_model)."

BYTES = "\ufffd"
"The string of a token that is not a whole character."

Triples = tuple[Int[Tensor, "3 n"], Float[Tensor, "3 n"]]
Piece = tuple[str, int | None]
"A piece of text and its token, or None if the piece is several tokens."
Similar = Callable[[Piece, Piece], bool]


def triples(
    model: GPT, head: AnyHead, *, n: int = 100, alike: float = ALIKE, block_bytes: int = 2**26
) -> DataFrame:
    """The n skip-trigrams of a head with the largest scores, exact, largest first, each with its
    pattern; fewer if fewer scores are above 0.

    Columns `source`, `destination`, `out`, `qk`, `ov`, `score` (see the docstring of the package)
    and `pattern`. b' is similar to b if both are the same word up to case and surrounding space, or
    if the cosine of their embeddings, minus the mean embedding, is above `alike`. "[ab]" is a
    source that is the destination followed by b, up to surrounding space. Circuits are multiplied
    out in blocks of `block_bytes`. ValueError unless n is 1 or more.
    """
    if n < 1:
        raise ValueError(f"n is a number of skip-trigrams, 1 or more, got {n}")
    with torch.no_grad():
        tokens, numbers = _largest(*circuits_of(model, head), n, block_bytes)
        similar = _similar(model, alike)
    sources, destinations, outs = (words_of(model, part) for part in tokens)
    qk, ov, score = numbers.tolist()
    text = vocabulary(model)
    named = zip(tokens.T.tolist(), zip(sources, destinations, outs, strict=True), strict=True)
    found = [_pattern(ids, words, similar, text) for ids, words in named]
    return DataFrame(
        {"source": sources, "destination": destinations, "out": outs,
         "qk": qk, "ov": ov, "score": score, "pattern": found}
    )  # fmt: skip


def pattern_counts(model: GPT, *, n: int = 100, alike: float = ALIKE) -> DataFrame:
    """The number of each head's `n` largest skip-trigrams with each of PATTERNS, one row per head;
    see `triples`. By chance the out is the source in about n / d_vocab of them."""
    heads = every_head(model.cfg)
    counts = [triples(model, at, n=n, alike=alike).pattern.value_counts() for at in heads]
    rows = [{"head": str(at), **count.to_dict()} for at, count in zip(heads, counts, strict=True)]
    table = DataFrame(rows, columns=["head", *PATTERNS])
    return table.fillna(dict.fromkeys(PATTERNS, 0)).astype(dict.fromkeys(PATTERNS, int))


def _largest(QK: FactoredMatrix, OV: FactoredMatrix, n: int, block_bytes: int) -> Triples:
    """(source, destination, out) and (qk, ov, score) of the n largest products.

    The n sources with the largest best triples contain all of them. For one source, i * j - 1
    triples are at least as large as the triple of the i-th destination and j-th out: i * j <= n.
    """
    k = min(n, QK.rdim)
    sources = best_of_sources(QK, OV, block_bytes).topk(k).indices
    qk, destinations = QK.columns(sources).topk(k, 0)  # rank source
    ov, outs = OV.rows(sources).topk(k)  # source rank
    rank = torch.arange(1, k + 1, device=sources.device)
    i, j = (rank[:, None] * rank <= n).nonzero().T
    scores = product(qk.T[:, i], ov[:, j])  # source pair
    values, flat = scores.flatten().topk(min(n, scores.numel()))
    values, flat = values[values > 0], flat[values > 0]
    source, pair = flat // len(i), flat % len(i)
    at, to = (i[pair], source), (source, j[pair])
    tokens = torch.stack([sources[source], destinations[at], outs[to]])
    return tokens, torch.stack([qk[at], ov[to], values])


def _pattern(tokens: list[int], words: tuple[str, ...], similar: Similar, text: Vocabulary) -> str:
    """The first of PATTERNS that fits a triple (source, destination, out)."""
    source, destination = words[0].strip(), words[1].strip()
    rest = source[len(destination) :] if destination and source.startswith(destination) else ""
    rest = rest if BYTES not in rest else ""
    ids = text.ids(rest)
    rest_token = ids[0] if len(ids) == 1 else None
    fits = (
        tokens[2] == tokens[0],
        bool(rest) and words[2] == rest,
        similar((words[0], tokens[0]), (words[2], tokens[2])),
        bool(rest) and similar((rest, rest_token), (words[2], tokens[2])),
        True,
    )
    return PATTERNS[fits.index(True)]


def _similar(model: GPT, alike: float) -> Similar:
    """A function that says whether two pieces of text are similar: the same word up to case and
    space, or two tokens with similar embeddings."""
    embedding = model.W_E - model.W_E.mean(0)

    def similar(one: Piece, other: Piece) -> bool:
        words = [text.strip().casefold() for text, _ in (one, other)]
        if one[1] == other[1]:
            return False
        if words[0] == words[1] and words[0] and BYTES not in words[0]:
            return True
        if one[1] is None or other[1] is None:
            return False
        first, second = embedding[one[1]], embedding[other[1]]
        return float(torch.cosine_similarity(first, second, dim=0)) > alike

    return similar
