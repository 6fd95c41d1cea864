"""Skip-trigrams: source ... destination -> out, read from one head's QK and OV circuits.

A head copies a source to where a destination token asks for it, and raises the out tokens. (Elhage
et al. 2021, "Interpreting ... as skip-trigrams",
https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from jaxtyping import Float
from pandas import DataFrame
from torch import Tensor

from analyses.labelled import head_label
from circuits.algebra import full_OV, full_QK
from circuits.model import GPT


def copying_table(model: GPT, layer: int = 0, *, rows: int = 8, top: int = 5) -> DataFrame:
    """The clearest copying skip-trigrams of a layer: one row a head, its source chosen by rule.

    The source is the word (a space and four letters or more) whose own logit stands out most among
    all that it raises, in standard deviations; `destinations` are the queries that score it highest
    above their mean over keys, `outs` the tokens it raises most, each as [(token, score), ...].
    `own_rank` is the rank of the source among its outs, 0 if it is copied before all others.
    """
    if model.tokenizer is None:
        raise ValueError("skip-trigrams are words: the model has no tokenizer")
    with torch.no_grad():
        OV, QK = full_OV(model), full_QK(model)
        words = _words(model)
        found = []
        for head in range(model.cfg.n_heads):
            raised = _centred(OV[layer, head].AB[words])  # word out, one head at a time
            own = raised[torch.arange(len(words)), words] / raised.std(-1)
            best = int(own.argmax())
            source, outs = int(words[best]), raised[best]
            scores = _asked_by(QK[layer, head].A, QK[layer, head].B, source)
            found.append(
                {
                    "head": head_label(layer, head),
                    "source": model.to_string(source),
                    "destinations": _top(model, scores, top),
                    "outs": _top(model, outs, top),
                    "own_rank": int((outs > outs[source]).sum()),
                    "own_score": float(own[best]),
                }
            )
    table = DataFrame(found).sort_values("own_score", ascending=False).head(rows)
    return table.reset_index(drop=True)


def _words(model: GPT) -> Tensor:
    strings = [model.to_string(token) for token in range(model.cfg.d_vocab)]
    alike = [s.startswith(" ") and s[1:].isalpha() and len(s) > 4 for s in strings]
    if not any(alike):
        raise ValueError("the vocabulary has no whole words (a space and four letters or more)")
    return torch.tensor(alike).nonzero().flatten()


def _asked_by(
    A: Float[Tensor, "d_vocab d_head"], B: Float[Tensor, "d_head d_vocab"], source: int
) -> Float[Tensor, " d_vocab"]:
    """Each query's score of the source less its mean over all keys, which softmax cannot see."""
    return A @ (B[:, source] - B.mean(-1))


def _centred(logits: Float[Tensor, "word d_vocab"]) -> Float[Tensor, "word d_vocab"]:
    return logits - logits.mean(-1, keepdim=True)


def _top(model: GPT, scores: Float[Tensor, " d_vocab"], k: int) -> list[tuple[str, float]]:
    values, tokens = scores.topk(k)
    return [(model.to_string(int(t)), float(v)) for t, v in zip(tokens, values, strict=True)]
