"""Text as tokens, and the tokens as windows for training."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from circuits.model import BOS, Vocabulary, checked_text


@runtime_checkable
class Batches(Protocol):
    """Training data: a step always gives the same tokens."""

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """`size` rows for this step."""
        ...


def train_tokenizer(texts: Iterable[str], d_vocab: int) -> Vocabulary:
    """A byte-level BPE of `d_vocab` tokens; token 0 is <|endoftext|>; words keep their leading
    space. ValueError for d_vocab below 257: the 256 bytes and <|endoftext|>.
    """
    if d_vocab < 257:
        raise ValueError(f"d_vocab must be 257 or more, for all bytes and {BOS}; got {d_vocab}")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(checked_text, texts), trainer)
    return Vocabulary(tokenizer)


def tokenize(texts: Iterable[str], vocabulary: Vocabulary) -> list[np.ndarray]:
    """The tokens of each document, without BOS, as uint16 (uint32 for more than 65,536)."""
    return list(encode(texts, vocabulary))


def encode(texts: Iterable[str], vocabulary: Vocabulary) -> Iterator[np.ndarray]:
    """The arrays of `tokenize` as an iterator, for text that is larger than memory."""
    kind = np.uint16 if vocabulary.size <= 2**16 else np.uint32
    left = iter(texts)
    while some := list(islice(left, 256)):
        whole = [checked_text(one) for one in some]
        for one in vocabulary.tokenizer.encode_batch_fast(whole, add_special_tokens=False):
            yield np.array(one.ids, dtype=kind)


class Windows:
    """Documents in a random order, each ended by BOS, cut into windows that begin with BOS.

    A row is BOS and the next `n_ctx` tokens: inputs row[:-1], targets row[1:]. In an epoch each
    token is a target once; only the last window may repeat tokens. Each epoch cuts at other
    positions and shuffles the windows again. In a share `repeats` of the rows the first 8 to
    n_ctx/2 tokens after BOS are repeated until the row is full.
    """

    def __init__(
        self,
        docs: Sequence[np.ndarray],
        n_ctx: int,
        bos: int,
        *,
        repeats: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not docs:
            raise ValueError("there are no documents to cut into windows")
        if not 0 <= repeats <= 1:
            raise ValueError(f"repeats must be a share of the rows, from 0 to 1; got {repeats}")
        self.docs, self.n_ctx, self.bos = docs, n_ctx, bos
        self.repeats, self.seed = repeats, seed
        lengths = getattr(docs, "lengths", None)
        lengths = [len(doc) for doc in docs] if lengths is None else lengths
        self._shuffled = np.random.default_rng(seed).permutation(len(docs))
        self._starts = np.concatenate([[0], np.cumsum(np.asarray(lengths)[self._shuffled] + 1)])
        self.tokens = int(self._starts[-1])
        self.per_epoch = -(-self.tokens // n_ctx)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """The `size` rows from row step * size on, [size n_ctx+1]. Epochs follow without end."""
        rows = np.stack([self._window(step * size + i) for i in range(size)])
        rng = np.random.default_rng([self.seed, 1, step])
        for row in np.flatnonzero(rng.random(size) < self.repeats):
            length = int(rng.integers(min(8, self.n_ctx // 2), self.n_ctx // 2 + 1))
            rows[row, 1:] = np.resize(rows[row, 1 : 1 + length], self.n_ctx)
        return torch.from_numpy(rows)

    def _window(self, index: int) -> np.ndarray:
        epoch, place = divmod(index, self.per_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, 0, epoch])
            self._epoch, self._order = epoch, rng.permutation(self.per_epoch)
            self._offset = int(rng.integers(self.tokens))
        start = self._offset + self._order[place] * self.n_ctx
        return np.concatenate([[self.bos], self.span(int(start), self.n_ctx)]).astype(np.int64)

    def span(self, start: int, length: int) -> np.ndarray:
        """`length` tokens from `start` on, of all shuffled documents in a row, each ended by BOS.
        After the last of the `tokens` tokens the first follows."""
        out, done = np.full(length, self.bos), 0
        while done < length:
            at = (start + done) % self.tokens
            place = int(np.searchsorted(self._starts, at, "right")) - 1
            doc = self.docs[self._shuffled[place]][at - self._starts[place] :][: length - done]
            out[done : done + len(doc)] = doc
            done += len(doc) + 1  # `out` already holds the BOS after the document
        return out
