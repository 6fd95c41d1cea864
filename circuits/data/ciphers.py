"""Passages, each followed by itself in another language. The language is a permutation of tokens.

The task stands for the translated texts on which Olsson et al. show a head that translates
(https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html,
Argument 4). `Ciphered` is a kind of `Batches`: step and seed determine a batch.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor


class Ciphered:
    """BOS + R + cipher(R). R is a passage of `shortest` to `longest` uniform random tokens. All
    rows of a batch have the same length.

    `cipher` is a permutation, the same in all rows: token t becomes cipher[t]. No token but BOS is
    its own cipher. If `redrawn`, the second passage is the cipher of another random passage, so
    that nothing predicts the second passage. ValueError for fewer than two tokens beside BOS.
    """

    def __init__(
        self,
        d_vocab: int,
        *,
        shortest: int,
        longest: int,
        redrawn: bool = False,
        bos: int = 0,
        seed: int = 0,
    ) -> None:
        if d_vocab < 3:
            raise ValueError(f"a cipher needs two tokens beside BOS, got d_vocab={d_vocab}")
        self.d_vocab, self.bos, self.seed = d_vocab, bos, seed
        self.shortest, self.longest, self.redrawn = shortest, longest, redrawn
        self.others = np.delete(np.arange(d_vocab), bos)
        cycle = torch.from_numpy(np.random.default_rng(seed).permutation(self.others))
        self.cipher: Int[Tensor, " d_vocab"] = torch.arange(d_vocab)
        self.cipher[cycle] = cycle.roll(1)  # one cycle: nothing stays in its place

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size 2n+1] tokens. The first passage cannot be predicted; the second can, unless
        `redrawn`."""
        rng = np.random.default_rng([self.seed, step])
        length = int(rng.integers(self.shortest, self.longest + 1))
        first, another = torch.from_numpy(rng.choice(self.others, (2, size, length)))
        second = self.cipher[another if self.redrawn else first]
        return torch.cat([torch.full((size, 1), self.bos), first, second], dim=1)
