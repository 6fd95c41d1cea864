"""Tables of one head's circuits: what it copies, what a source does, its largest entries."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from analyses.heads.skip_trigrams.scores import (
    circuits,
    circuits_of,
    product,
    tokens_of,
    vocabulary,
    words_of,
)
from circuits.matrices import FactoredMatrix, Progress
from circuits.model import GPT, AnyHead, Head, every_head


def copying_table(model: GPT, *, top: int = 5) -> DataFrame:
    """The clearest copying skip-trigram of each head, read straight from the embedding.

    The source is the word (a space and four letters or more) whose own logit stands out most among
    all that it raises, in standard deviations; `destinations` are the queries that score it highest
    above their mean over keys, `outs` the tokens it raises most, each as [(token, score), ...].
    `own_rank` is the rank of the source among its outs, 0 if it is copied before all others.
    ValueError for a model without a tokenizer, or whose vocabulary has no such word.
    """
    _require_top(model, top)
    with torch.no_grad():
        QK, OV = circuits(model)
        words, heads = _whole_words(model), every_head(model.cfg)
        return DataFrame([_copied(model, QK[at], OV[at], words, at, top) for at in heads])


def table(model: GPT, head: AnyHead, source: str | int, *, top: int = 5) -> DataFrame:
    """The skip-trigrams of one source token at one head, largest score first: its `top`
    destinations by QK, each with its `top` outs by OV.

    Columns `source`, `destination`, `out`, `qk`, `ov`, `score`; what the numbers are is said at the
    top of the package. ValueError for a source that is not one token.
    """
    _require_top(model, top)
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        token = tokens_of(model, [source])
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
    """The k largest entries of a head's full circuit, exact, largest first; each row of the circuit
    less its mean, which softmax cannot see.

    Columns `source`, `out`, `score` for OV, `destination`, `source`, `score` for QK. The circuit is
    streamed in blocks and never held. ValueError for another `which`.
    """
    if which not in ("OV", "QK"):
        raise ValueError(f"a head has circuits 'OV' and 'QK', got {which!r}")
    with torch.no_grad():
        QK, OV = circuits_of(model, head)
        entries = (QK if which == "QK" else OV).top(k, progress=progress)
    row, column = ("destination", "source") if which == "QK" else ("source", "out")
    return DataFrame(
        {
            row: words_of(model, entries.rows),
            column: words_of(model, entries.columns),
            "score": entries.values.tolist(),
        }
    )


def _copied(
    model: GPT,
    QK: FactoredMatrix,
    OV: FactoredMatrix,
    words: Int[Tensor, " word"],
    at: Head,
    top: int,
) -> dict[str, object]:
    A, B = OV.pair
    spread = (A[words] @ (B @ B.T) * A[words]).sum(-1) / (B.shape[1] - 1)  # variance over outs
    own = (A[words] * B.T[words]).sum(-1) / spread.clamp(min=1e-30).sqrt()
    best = int(own.argmax())
    source = words[best : best + 1]
    outs = OV.rows(source)[0]
    return {
        "head": str(at),
        "source": words_of(model, source)[0],
        "destinations": _top(model, QK.columns(source)[:, 0], top),
        "outs": _top(model, outs, top),
        "own_rank": int((outs > outs[source]).sum()),
        "own_score": float(own[best]),
    }


def _whole_words(model: GPT) -> Int[Tensor, " word"]:
    strings = words_of(model, torch.arange(vocabulary(model).size))
    alike = [s.startswith(" ") and s[1:].isalpha() and len(s) > 4 for s in strings]
    if not any(alike):
        raise ValueError("the vocabulary has no whole words (a space and four letters or more)")
    return torch.tensor(alike, device=model.W_E.device).nonzero().flatten()


def _top(model: GPT, scores: Float[Tensor, " d_vocab"], k: int) -> list[tuple[str, float]]:
    values, tokens = scores.topk(k)
    return list(zip(words_of(model, tokens), values.tolist(), strict=True))


def _require_top(model: GPT, top: int) -> None:
    if not 1 <= top <= model.cfg.d_vocab:
        raise ValueError(f"top is from 1 to d_vocab={model.cfg.d_vocab}, got {top}")
