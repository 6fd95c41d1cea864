"""Words that the tokenizer splits: " Ralph" is one token, but "Ralph" without space is R and alph.

To copy a split word is a skip-trigram: source " Ralph" ... destination "R" -> out "alph".
(Elhage et al. 2021, https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from jaxtyping import Float
from pandas import DataFrame, concat
from torch import Tensor

from analyses.heads.skip_trigrams.effects import each_head, entries, product, ranks, vocabulary
from analyses.labelled import words_of
from circuits.model import GPT

Split = tuple[int, int, int, int]


def split_tokens(model: GPT) -> DataFrame:
    """The words of the vocabulary that are split without their leading space, in token order.

    Columns `source` (" Ralph"), `destination` (the first piece, "R"), `out` (the second piece,
    "alph") and `pieces`, the number of pieces. A word is a space and two letters or more.
    ValueError for a model without a tokenizer.
    """
    found = _splits(model)
    source, destination, out, pieces = zip(*found, strict=True) if found else [()] * 4
    named = (words_of(model, torch.tensor(part)) for part in (source, destination, out))
    return DataFrame(
        {**dict(zip(("source", "destination", "out"), named, strict=True)), "pieces": list(pieces)}
    )


def split_table(model: GPT) -> DataFrame:
    """Each word of `split_tokens` at each head: columns `head`, `source`, `destination`, `out`,
    `qk`, `ov`, `score` (see the docstring of the package) and two ranks from 0.
    `destination_rank` is the rank of the destination among all queries by QK, `out_rank` the rank
    of the out among all tokens by OV.

    In a head without knowledge of spelling, `qk` and `ov` are both above 0 for a quarter of words.
    """
    words, found = split_tokens(model), torch.tensor(_splits(model)).reshape(-1, 4)
    source, destination, out, _ = found.to(model.W_E.device).T
    parts = []
    with torch.no_grad():
        for at, QK, OV in each_head(model):
            qk, ov = entries(QK, destination, source), entries(OV, source, out)
            part = words.drop(columns="pieces").assign(
                qk=qk.tolist(),
                ov=ov.tolist(),
                score=product(qk, ov).tolist(),
                destination_rank=ranks(QK.T, source, destination).tolist(),
                out_rank=ranks(OV, source, out).tolist(),
            )
            part.insert(0, "head", str(at))
            parts.append(part)
    columns = ["head", "source", "destination", "out", "qk", "ov", "score",
               "destination_rank", "out_rank"]  # fmt: skip
    return concat(parts, ignore_index=True) if parts else DataFrame(columns=columns)


def split_contrast(model: GPT) -> DataFrame:
    """How well a head prefers a word's own pieces to the pieces of other split words, one row per
    head: the mean share of other words whose pieces score less (ties count half), 0.5 by chance.

    Columns `head`, `destination` (by QK), `out` (by OV) and `score` (by their product, with both
    pieces of the same word). ValueError for fewer than two split words.
    """
    found = torch.tensor(_splits(model)).reshape(-1, 4)
    if len(found) < 2:
        raise ValueError(f"two split words or more are needed, the vocabulary has {len(found)}")
    source, destination, out, _ = found.to(model.W_E.device).T
    rows = []
    with torch.no_grad():
        for at, QK, OV in each_head(model):
            qk = QK[destination, source].AB.T  # word pieces
            ov = OV[source, out].AB
            shares = (_share_below(scores) for scores in (qk, ov, product(qk, ov)))
            rows.append([str(at), *shares])
    return DataFrame(rows, columns=["head", "destination", "out", "score"])


def _share_below(scores: Float[Tensor, "word word"]) -> float:
    own = scores.diagonal()[:, None]
    below = (scores < own).sum(-1) + ((scores == own).sum(-1) - 1) / 2
    return float((below / (len(scores) - 1)).mean())


def _splits(model: GPT) -> list[Split]:
    """(source, destination, out, pieces) in tokens."""
    text, found = vocabulary(model), []
    for token in range(text.size):
        word = text.to_string(token)
        if word.startswith(" ") and word[1:].isalpha() and len(word) > 2:
            pieces = text.to_tokens(word[1:], prepend_bos=False)[0].tolist()
            if len(pieces) > 1:
                found.append((token, pieces[0], pieces[1], len(pieces)))
    return found
