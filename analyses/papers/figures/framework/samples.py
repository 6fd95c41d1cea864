"""What the verdicts are measured on: held-out windows, intervals, and heads by their role."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from analyses import prompts
from analyses.heads import attention
from analyses.labelled import interval
from analyses.prompts import passages
from circuits.model import GPT, Head

LENGTH = 192
"The number of tokens of a held-out window."
LACKING = (
    f"no head has prefix matching above {attention.THRESHOLD} on random repeated tokens, so there "
    "is no induction head"
)


def windows(model: GPT, n: int) -> Int[Tensor, "window pos"]:
    """The first n held-out windows; for a model that reads no text, random tokens said twice."""
    if model.tokenizer is None:
        return prompts.repeated(model, batch=min(n, 16))
    return passages.held_out(model, min(LENGTH, model.cfg.n_ctx))[:n]


def induction_heads(model: GPT) -> list[Head]:
    """The heads with prefix matching above attention.THRESHOLD, best first."""
    score = attention.prefix_matching(model).values
    found = [Head(int(layer), int(head)) for layer, head in zip(*(score > attention.THRESHOLD)
             .nonzero(), strict=True)]  # fmt: skip
    return sorted(found, key=lambda at: -score[at.layer, at.head])


def ends(values: Float[np.ndarray, " example"]) -> tuple[float, float]:
    """The ends of the 95% interval of a mean over examples."""
    low, high = interval(torch.tensor(values), torch.ones(len(values)))
    return float(low), float(high)


def previous_token_head(model: GPT) -> Head:
    """The head of layer 0 that attends most to the token before."""
    return Head(0, int(attention.previous_token(model)[0].values.argmax()))
