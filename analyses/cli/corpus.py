"""The text of `circuits train`: files or a dataset, the tokenizer, and windows of tokens."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from circuits.data import (
    Windows,
    documents,
    file_marks,
    hub_documents,
    shards,
    text_files,
    tokenize,
    train_tokenizer,
)
from circuits.io import read_tokenizer, write_tokenizer
from circuits.model import Vocabulary

EVERY = 50
"Every 50th document is held out if `held_out` is not given."
TAIL = 0.1
"The share of a single document that is held out, at its end."


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Text for training and held-out text for measurements. ValueError unless exactly one of `data`
    and `dataset` is given.

    Without `held_out` the first document and every 50th after it are held out, or the last tenth of
    a single document.
    """

    data: Sequence[Path] = ()
    "Text files, folders and globs."
    dataset: str | None = None
    "The name of a Hugging Face dataset, which is streamed."
    documents: int | None = None
    "The largest number of documents."
    held_out: Sequence[Path] = ()
    repeats: float = 0.0
    "The share of the windows in which a passage is repeated."

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.dataset):
            raise ValueError("give either text files or the name of a dataset")
        if self.documents is not None and self.documents < 1:
            raise ValueError(f"documents must be 1 or more, got {self.documents}")

    def texts(self) -> Iterator[str]:
        """The documents for training."""
        if self.held_out:
            return self._read()
        return (text for text, apart in self._shared_out() if not apart)

    def unseen(self) -> Iterator[str]:
        """The held-out documents."""
        if self.held_out:
            return documents(*self.held_out)
        return (text for text, apart in self._shared_out() if apart)

    def vocabulary(
        self, file: Path, d_vocab: int, given: Path | None = None, *, resumed: bool = False
    ) -> Vocabulary:
        """The given tokenizer, or a tokenizer of `d_vocab` tokens trained on the texts; it is
        written to `file`. If the run is `resumed`, the tokenizer in `file`; ValueError if it does
        not fit the arguments.
        """
        wanted = read_tokenizer(given) if given else None
        if resumed and file.is_file():
            kept = read_tokenizer(file)
            if wanted and wanted.tokenizer.to_str() != kept.tokenizer.to_str():
                raise ValueError(f"the run began with the tokenizer in {file}, not with {given}")
            if not wanted and kept.size > d_vocab:
                raise ValueError(f"{file} has {kept.size} tokens, but d_vocab is {d_vocab}")
            return kept
        vocabulary = wanted or train_tokenizer(self.texts(), d_vocab)
        write_tokenizer(vocabulary, file)
        return vocabulary

    def windows(self, vocabulary: Vocabulary, n_ctx: int, cache: Path, *, seed: int) -> Windows:
        """Windows of the training documents, which are tokenised once into `cache`."""
        rows = shards(self.texts(), vocabulary, cache, sources=self._marks())
        return Windows(rows, n_ctx, vocabulary.bos, repeats=self.repeats, seed=seed)

    def everything(self, vocabulary: Vocabulary, n_ctx: int, cache: Path | None = None) -> Windows:
        """Windows of all documents of `data` or `dataset`; in memory without a cache."""
        if cache is None:
            return Windows(tokenize(self._read(), vocabulary), n_ctx, vocabulary.bos)
        marks = [*self._marks(), "everything"]
        return Windows(
            shards(self._read(), vocabulary, cache, sources=marks), n_ctx, vocabulary.bos
        )

    def evaluation(
        self, vocabulary: Vocabulary, n_ctx: int, examples: int
    ) -> Int[Tensor, "batch pos"]:
        """The first windows of held-out text, [examples n_ctx+1], always the same."""
        return Windows(tokenize(self.unseen(), vocabulary), n_ctx, vocabulary.bos).batch(
            0, examples
        )

    def about(self) -> dict[str, Any]:
        """The names of the files, without folders, and the other options, for run.json."""
        names = {
            kind: [file.name for file in text_files(*paths)]
            for kind, paths in (("data", self.data), ("held_out", self.held_out))
        }
        limits = {"dataset": self.dataset, "documents": self.documents, "repeats": self.repeats}
        return {**names, **limits}

    def _shared_out(self) -> Iterator[tuple[str, bool]]:
        """Every document, and whether it is held out; a single document in two pieces."""
        every = self._read()
        first = list(islice(every, 2))
        if len(first) == 1:
            yield from zip(_cut(first[0]), (False, True), strict=True)
        else:
            yield from ((text, i % EVERY == 0) for i, text in enumerate(chain(first, every)))

    def _read(self) -> Iterator[str]:
        every = hub_documents(self.dataset) if self.dataset else documents(*self.data)
        return islice(every, self.documents)

    def _marks(self) -> list[Any]:
        left_out = None if self.held_out else EVERY
        return [self.dataset, self.documents, left_out, *file_marks(*self.data)]


def _cut(text: str) -> tuple[str, str]:
    """A text without its last tenth, and the last tenth, cut before a word if there is one."""
    end = round(len(text.rstrip()) * (1 - TAIL))
    word = re.compile(r"\s(?=\S)").search(text, end)
    at = word.start() if word else end
    if not text[:at].strip() or not text[at:].strip():
        raise ValueError(
            f"the only document, {text[:20]!r}, is too short to hold out its end: "
            "give more text, or held-out text (held_out)"
        )
    return text[:at], text[at:]
