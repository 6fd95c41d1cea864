"""Skip-trigrams: source ... destination -> out, read from one head's QK and OV circuits.

A head copies a source to where a destination token asks for it, and raises the out tokens. (Elhage
et al. 2021, "Interpreting ... as skip-trigrams",
https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from jaxtyping import Float, Int
from pandas import DataFrame
from torch import Tensor

from analyses.labelled import head_label
from circuits.algebra import full_OV, full_QK
from circuits.factored import FactoredMatrix
from circuits.model import GPT


def copying_table(model: GPT, *, top: int = 5) -> DataFrame:
    """The clearest copying skip-trigram of each head, read straight from the embedding.

    The source is the word (a space and four letters or more) whose own logit stands out most among
    all that it raises, in standard deviations; `destinations` are the queries that score it highest
    above their mean over keys, `outs` the tokens it raises most, each as [(token, score), ...].
    `own_rank` is the rank of the source among its outs, 0 if it is copied before all others.
    """
    if model.tokenizer is None:
        raise ValueError("skip-trigrams are words: the model has no tokenizer")
    with torch.no_grad():
        OV, QK, words = full_OV(model), full_QK(model), _words(model)
        heads = [(i, j) for i in range(model.cfg.n_layers) for j in range(model.cfg.n_heads)]
        return DataFrame([_row(model, OV[at], QK[at], words, at, top) for at in heads])


def _row(
    model: GPT,
    OV: FactoredMatrix,
    QK: FactoredMatrix,
    words: Int[Tensor, " word"],
    at: tuple[int, int],
    top: int,
) -> dict[str, object]:
    raised = OV.A[words] @ OV.B  # word out
    raised = raised - raised.mean(-1, keepdim=True)  # softmax cannot see the mean
    own = raised[torch.arange(len(words)), words] / raised.std(-1)
    best = int(own.argmax())
    source, outs = int(words[best]), raised[best]
    scores = QK.A @ (QK.B[:, source] - QK.B.mean(-1))  # less each query's mean over keys
    return {
        "head": head_label(*at),
        "source": model.to_string(source),
        "destinations": _top(model, scores, top),
        "outs": _top(model, outs, top),
        "own_rank": int((outs > outs[source]).sum()),
        "own_score": float(own[best]),
    }


def _words(model: GPT) -> Int[Tensor, " word"]:
    strings = [model.to_string(token) for token in range(model.cfg.d_vocab)]
    alike = [s.startswith(" ") and s[1:].isalpha() and len(s) > 4 for s in strings]
    if not any(alike):
        raise ValueError("the vocabulary has no whole words (a space and four letters or more)")
    return torch.tensor(alike).nonzero().flatten()


def _top(model: GPT, scores: Float[Tensor, " d_vocab"], k: int) -> list[tuple[str, float]]:
    values, tokens = scores.topk(k)
    return [(model.to_string(int(t)), float(v)) for t, v in zip(tokens, values, strict=True)]
