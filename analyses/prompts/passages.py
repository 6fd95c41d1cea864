"""Text written for this project: what figures show, and what they measure losses on.

A story with names of several tokens, a manual, advice, code, a textbook, a proposal, a description
of customs, questions with answers: see analyses/texts. None of it is from the corpus that the
models were trained on, or from anywhere else.
"""

from importlib import resources

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.model import GPT

NAMES = ("story", "manual", "advice", "code", "textbook", "proposal", "customs", "answers")


def passage(name: str) -> str:
    """One text by its name; KeyError with what exists for an unknown one."""
    if name not in NAMES:
        raise KeyError(f"no passage {name!r}; there are {list(NAMES)}")
    file = resources.files("analyses.prompts") / "texts" / f"{name}.txt"
    return file.read_text(encoding="utf-8")


def tokens(model: GPT, length: int | None = None) -> Int[Tensor, "batch pos"]:
    """The beginnings of all passages, [passage pos], BOS first: as many tokens as fit into the
    context and as every passage has, or `length`.

    ValueError for a model that reads no text, and for a length that does not fit.
    """
    if model.tokenizer is None:
        raise ValueError("passages are text, and this model reads none: it has no tokenizer")
    rows = [model.to_tokens(passage(name))[0] for name in NAMES]
    fits = min(model.cfg.n_ctx, *(len(row) for row in rows))
    if length is not None and not 1 <= length <= fits:
        raise ValueError(f"passages are cut to 1 to {fits} tokens for this model, got {length}")
    return torch.stack([row[: length or fits] for row in rows])
