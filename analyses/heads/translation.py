"""Translation heads: A B ... A' -> B', where A' and B' are A and B in another language.

A cipher stands for the other language: a permutation of the tokens, [d_vocab], in which token t
becomes cipher[t]. A translation head attends from A' to B, the token after an earlier A, and raises
B'. (Olsson et al. 2022, Argument 4,
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from jaxtyping import Int
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.heads import induction
from analyses.heads.attention import attention_on
from analyses.heads.masks import to_successors
from analyses.labelled import Model, Weighted, tokens_of
from circuits.model import Ids

Cipher = Int[Tensor, " d_vocab"]


def prefix_matching(model: Model, cipher: Cipher, tokens: Ids | str | None = None) -> DataArray:
    """The mean attention to the tokens after earlier tokens whose cipher is the current token,
    (layer, head), in [0, 1]: `attention.prefix_matching` through a cipher. The default prompt is
    `prompts.ciphered`. ValueError for tokens without such a match."""
    tokens = prompts.ciphered(model, cipher) if tokens is None else tokens_of(model, tokens)
    words = "prefix matching through the cipher (share of attention)"
    return attention_on(model, tokens, to_successors(tokens, cipher=cipher), "translation", words)


def copying(model: Weighted, cipher: Cipher, tokens: Ids | str | None = None) -> DataArray:
    """The share of a head's raised logits that falls on the cipher of the attended token, (layer,
    head), in [0, 1]. This is `induction.copying` through a cipher: the logits counted are the
    logits of the ciphers of the row's tokens."""
    found = induction.copying(model, tokens, cipher=cipher)
    words = "raise of the attended token's cipher, of all in the sample"
    return found.rename("translation_copying").assign_attrs(long_name=words)
