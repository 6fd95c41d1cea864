"""Token streams to train on: text files cut into windows, and synthetic sequences."""

import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from circuits.tokens import BOS, Vocabulary

SUFFIXES = (".txt", ".md", ".rst", ".py", ".gz")


@runtime_checkable
class Batches(Protocol):
    """What a training loop reads: step -> tokens, the same ones for the same step."""

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """`size` rows for this step."""
        ...


def documents(*paths: Path | str) -> Iterator[str]:
    """The documents of text files (also .gz) and of all text files below folders, in name order.

    A line that holds only <|endoftext|> ends a document; a file ends one too. ValueError names a
    file that is not UTF-8, with the byte where it stops being so, and a path without any text.
    """
    for path in map(Path, paths):
        files = (
            sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES) if path.is_dir() else [path]
        )
        if not files:
            raise ValueError(f"no text in {path}: files must end in one of {SUFFIXES}")
        for file in files:
            yield from (text for text in _read(file).split(f"\n{BOS}\n") if text.strip())


def _read(file: Path) -> str:
    if not file.exists():
        raise ValueError(f"{file} does not exist")
    raw = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from None


def train_tokenizer(texts: Sequence[str], d_vocab: int) -> Vocabulary:
    """A byte-level BPE of `d_vocab` tokens, <|endoftext|> first; words keep their leading space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=d_vocab,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Vocabulary(tokenizer)


def tokenized(texts: Sequence[str], vocabulary: Vocabulary) -> list[np.ndarray]:
    """The tokens of each document, without BOS, as uint16 (uint32 for more than 65,536)."""
    kind = np.uint16 if vocabulary.size <= 2**16 else np.uint32
    rows: list[np.ndarray] = []
    for start in range(0, len(texts), 256):
        encoded = vocabulary.tokenizer.encode_batch_fast(
            list(texts[start : start + 256]), add_special_tokens=False
        )
        rows += [np.array(one.ids, dtype=kind) for one in encoded]
    return rows


class Windows:
    """Documents in a seeded order, each ended by BOS, cut into windows that begin with BOS.

    A row is BOS and the next `n_ctx` tokens: inputs row[:-1], targets row[1:]. Within an epoch each
    token is a target exactly once; each epoch cuts at other places and shuffles anew. In a share
    `repeats` of the rows a passage of 8 to n_ctx/2 tokens is said again until the row is full.
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
            raise ValueError(f"repeats is a share of the windows, from 0 to 1; got {repeats}")
        order = np.random.default_rng(seed).permutation(len(docs))
        end = np.array([bos], dtype=docs[0].dtype)
        self.stream = np.concatenate([part for i in order for part in (docs[i], end)])
        self.n_ctx, self.bos, self.repeats, self.seed = n_ctx, bos, repeats, seed
        self.per_epoch = -(-len(self.stream) // n_ctx)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """Rows step * size and on, [size n_ctx+1]; endless, epoch after epoch."""
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
            self._offset = int(rng.integers(len(self.stream)))
        start = self._offset + self._order[place] * self.n_ctx
        span = np.arange(start, start + self.n_ctx) % len(self.stream)
        return np.concatenate([[self.bos], self.stream[span]]).astype(np.int64)


class RepeatedTokens:
    """BOS + R + R, R uniform random tokens, one length per batch from `shortest` to `longest`."""

    def __init__(
        self, d_vocab: int, *, shortest: int, longest: int, bos: int = 0, seed: int = 0
    ) -> None:
        self.d_vocab, self.bos, self.seed = d_vocab, bos, seed
        self.shortest, self.longest = shortest, longest

    def batch(self, step: int, size: int) -> Int[Tensor, "batch pos"]:
        """[size 2n+1] tokens; the first copy cannot be predicted, the second can."""
        rng = np.random.default_rng([self.seed, step])
        length = int(rng.integers(self.shortest, self.longest + 1))
        return repeated_tokens(self.d_vocab, length, size, bos=self.bos, rng=rng)


def repeated_tokens(
    d_vocab: int, length: int, batch: int, *, times: int = 2, bos: int = 0, rng: np.random.Generator
) -> Int[Tensor, "batch pos"]:
    """BOS and `length` uniform random tokens (never BOS) said `times` times,
    [batch 1+times*length]."""
    drawn = rng.integers(0, d_vocab - 1, (batch, length))
    once = drawn + (drawn >= bos)
    return torch.from_numpy(np.concatenate([np.full((batch, 1), bos), *[once] * times], axis=1))
