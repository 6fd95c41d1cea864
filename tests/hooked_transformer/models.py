"""Models and a vocabulary, as tests of HookedTransformer share them."""

import torch

from circuits.data import train_tokenizer
from circuits.hooked_transformer import HookedTransformer
from tests.conftest import TINY, tiny, tiny_tokens

SHAPE = {**TINY, "attn_only": True}
TOKENS = tiny_tokens()
VOCABULARY = train_tokenizer(["the cat sat on the mat"], 270)


def speaking(**fields) -> HookedTransformer:
    cfg = {**SHAPE, "d_vocab": 270, "seed": 0, "initializer_range": 0.5, **fields}
    return HookedTransformer(cfg, VOCABULARY).eval()


def biased() -> HookedTransformer:
    return ported(d_mlp=6, act_fn="relu", normalization_type=None)


def ported(**fields) -> HookedTransformer:
    """A tiny GPT whose every parameter matters, as a HookedTransformer."""
    gpt = tiny(**fields)
    model = HookedTransformer({**vars(gpt.cfg), "dtype": torch.float64})
    model.load_state_dict(gpt.state_dict())
    return model.eval()
