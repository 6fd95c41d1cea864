"""Texts for figures and losses.

Eight passages were written for this project: a story with names of several tokens, a manual,
advice, code, a textbook, a proposal, a description of customs, questions with answers. There are
also 200 kB of public-domain text on which no model was trained (see texts/SOURCES.md). Claims about
text are measured on about 250 windows of it.
"""

from importlib import resources

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.model import BOS, GPT

NAMES = ("story", "manual", "advice", "code", "textbook", "proposal", "customs", "answers")


def passage(name: str) -> str:
    """The passage of this name; KeyError, with the names that exist, for an unknown name."""
    if name not in NAMES:
        raise KeyError(f"no passage {name!r}; there are {list(NAMES)}")
    file = resources.files("analyses.prompts") / "texts" / f"{name}.txt"
    return file.read_text(encoding="utf-8")


def held_out(model: GPT, length: int = 192) -> Int[Tensor, "window pos"]:
    """Windows of `length` tokens of the public-domain text, [window pos]. A window is BOS and part
    of one document; windows do not overlap. ValueError for a model without a tokenizer, and for a
    length that does not fit into the context."""
    if model.tokenizer is None:
        raise ValueError("held-out windows are text, and this model has no tokenizer")
    if not 2 <= length <= model.cfg.n_ctx:
        raise ValueError(f"a window has 2 to {model.cfg.n_ctx} tokens for this model, got {length}")
    file = resources.files("analyses.prompts") / "texts" / "held_out.txt"
    windows = []
    for document in file.read_text(encoding="utf-8").split(f"\n{BOS}\n"):
        row = model.to_tokens(document)[0]
        bos, pieces = row[:1], row[1:].split(length - 1)
        windows += [torch.cat([bos, piece]) for piece in pieces if len(piece) == length - 1]
    if not windows:
        raise ValueError(f"no document has {length} tokens for this model")
    return torch.stack(windows)


def tokens(model: GPT, length: int | None = None) -> Int[Tensor, "batch pos"]:
    """The first `length` tokens of each passage, [passage pos], BOS first. The default length is
    the largest that fits into the context and that every passage has.

    ValueError for a model without a tokenizer, and for a length that does not fit.
    """
    if model.tokenizer is None:
        raise ValueError("passages are text, and this model reads none: it has no tokenizer")
    rows = [model.to_tokens(passage(name))[0] for name in NAMES]
    fits = min(model.cfg.n_ctx, *(len(row) for row in rows))
    if length is not None and not 1 <= length <= fits:
        raise ValueError(f"passages are cut to 1 to {fits} tokens for this model, got {length}")
    return torch.stack([row[: length or fits] for row in rows])
