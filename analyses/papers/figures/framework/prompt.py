"""The one short prompt that the schematics of the framework paper are drawn on."""

from jaxtyping import Int
from torch import Tensor

from analyses import prompts
from circuits.model import GPT

WORDS = "The captain of the ship said that the captain of the"
LONGEST = 24
"Tokens of the prompt that are shown."


def prompt(model: GPT) -> Int[Tensor, "1 pos"]:
    """A sentence of ours that begins to repeat itself, BOS first, cut to 24 tokens; for a model
    that reads no text, BOS and random tokens said twice."""
    if model.tokenizer is None:
        length = min(LONGEST, model.cfg.n_ctx) // 2 - 1
        return prompts.repeated(model, max(length, 1), batch=1)
    return model.to_tokens(WORDS)[:, : min(LONGEST, model.cfg.n_ctx)]
