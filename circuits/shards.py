"""Documents tokenised once into memory-mapped files, for corpora that memory does not hold.

A folder of shards holds tokens-*.bin (one document after another, no BOS between), lengths.npy
(tokens of each document) and index.json. It lies in a cache under a name made from the tokenizer
and from what was read, so it is used again exactly as long as both are unchanged.
"""

import hashlib
import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from circuits.data import encoded
from circuits.files import PART, flushed
from circuits.text import text_files
from circuits.tokens import Vocabulary

SHARD = 2**27
"Tokens after which a new file begins; a document is never split."


class Shards(Sequence[np.ndarray]):
    """The tokens of each document, mapped from a folder that `shards` wrote; for `Windows`.

    ValueError if a file is missing or is not as long as the index says.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        index_file = self.folder / "index.json"
        if not index_file.is_file():
            raise ValueError(f"{self.folder} holds no shards: index.json is missing")
        index = json.loads(index_file.read_text())
        dtype = np.dtype(index["dtype"])
        self.lengths: np.ndarray = np.load(self.folder / "lengths.npy", mmap_mode="r")
        self._ends = np.cumsum(self.lengths)
        self._first = [0]  # the token that each file begins with, and the total
        self._files = []
        for name, tokens in index["shards"]:
            file, size = self.folder / name, tokens * dtype.itemsize
            if not file.is_file() or file.stat().st_size != size:
                there = file.stat().st_size if file.is_file() else 0
                raise ValueError(f"{file} holds {there} bytes, and {size} by index.json")
            mapped = np.memmap(file, dtype, "r") if tokens else np.empty(0, dtype)
            self._files.append(mapped.view(np.ndarray))
            self._first.append(self._first[-1] + tokens)

    @property
    def tokens(self) -> int:
        """How many tokens there are."""
        return self._first[-1]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, document: Any) -> Any:
        if not -len(self) <= document < len(self):
            raise IndexError(f"document {document} of {len(self)}")
        end, length = int(self._ends[document]), int(self.lengths[document])
        file = bisect_right(self._first, end - 1) - 1 if length else 0
        start = end - length - self._first[file]
        return self._files[file][start : start + length] if length else self._files[0][:0]


def file_marks(*paths: Path | str) -> list[list[Any]]:
    """[name, bytes, time of change] of every text file that the paths stand for: if these are
    unchanged, so are the files."""
    stats = [(file, file.stat()) for file in text_files(*paths)]
    return [[file.name, stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def shards(
    texts: Iterable[str],
    vocabulary: Vocabulary,
    cache: Path | str,
    *,
    sources: Sequence[Any],
    shard_tokens: int = SHARD,
) -> Shards:
    """The texts as Shards in a folder of `cache`; if it is there already, nothing is read.

    `sources` says in JSON where the texts come from (`file_marks` of their files, or a dataset's
    name). The folder appears when it is whole.
    """
    tokenizer = hashlib.sha256(vocabulary.tokenizer.to_str().encode()).hexdigest()
    about = {"sources": list(sources), "tokenizer": tokenizer}
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = Path(cache) / key
    if not (folder / "index.json").is_file():
        part = folder.with_name(f"{PART}{os.getpid()}-{key}")
        part.mkdir(parents=True)
        try:
            _write(texts, vocabulary, part, about, shard_tokens)
            with suppress(OSError):  # another process may have been faster
                part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return Shards(folder)


def _write(
    texts: Iterable[str], vocabulary: Vocabulary, folder: Path, about: dict, shard_tokens: int
) -> None:
    lengths: list[int] = []
    files: list[list[Any]] = []
    opened = None
    try:
        for row in encoded(texts, vocabulary):
            if opened is None or files[-1][1] >= shard_tokens:
                if opened is not None:
                    opened.close()
                files.append([f"tokens-{len(files):05d}.bin", 0])
                opened = (folder / files[-1][0]).open("wb")
            opened.write(row.tobytes())
            files[-1][1] += len(row)
            lengths.append(len(row))
            dtype = row.dtype.str
    finally:
        if opened is not None:
            opened.close()
    if not lengths:
        raise ValueError(f"there is no text in {about['sources']}")
    np.save(folder / "lengths.npy", np.array(lengths, dtype=np.int64))
    index = {**about, "dtype": dtype, "documents": len(lengths), "shards": files}
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")
    for file in folder.iterdir():
        flushed(file)
