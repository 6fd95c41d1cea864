"""Tiny models that can read, and models that know skip-trigrams and nothing else."""

import torch

from circuits import GPT, GPTConfig
from circuits.data import train_tokenizer
from tests.conftest import tiny

WORDS = ["keep", "in", "at", "mind", "bay", "under", "wraps", "one", "Two", "two", "Ralph", "alpha",
         "beta", "ab", "cd"]  # fmt: skip
TEXT = [f" {word}" * 9 for word in WORDS] + ["two", "two"] * 9
VOCABULARY = train_tokenizer(TEXT, 310)
ROWS = 512


def talker(**fields) -> GPT:
    """A tiny random model that can read."""
    model = tiny(d_vocab=VOCABULARY.size, **fields).requires_grad_(False)
    model.tokenizer = VOCABULARY
    return model


def trigrams(*written: tuple[str, str, str, float, float]) -> GPT:
    """A one-layer model, float64, whose one head knows the skip-trigrams (source, destination, out)
    with these QK scores and OV effects and no others. Embeddings are one-hot; there are 512 rows,
    more than tokens, so that means over them are exact in binary."""
    V = ROWS
    cfg = GPTConfig(n_layers=1, d_model=2 * V, n_heads=1, d_head=V, d_vocab=V, n_ctx=8, bias=False,
                    normalization_type=None, positional_embedding_type="none",
                    attn_scale=1.0)  # fmt: skip
    model = GPT(cfg, VOCABULARY).double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    token = torch.arange(V)
    model.embed.W_E[token, token] = 1
    model.unembed.W_U[V + token, token] = 1
    attn = model.blocks[0].attn
    for source, destination, out, qk, ov in written:
        s, d, o = (VOCABULARY.to_single_token(word) for word in (source, destination, out))
        attn.W_K[0, s, s] = attn.W_V[0, s, s] = 1
        attn.W_Q[0, d, s] = qk
        attn.W_O[0, s, V + o] = ov
    return model


def centred(dense: torch.Tensor) -> torch.Tensor:
    return dense - dense.mean(-1, keepdim=True)
