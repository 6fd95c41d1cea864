"""Documents tokenised once into memory-mapped files, for text that is larger than memory.

A folder of shards holds tokens-*.bin (documents one after another, without BOS), lengths.npy (the
number of tokens of each document) and index.json, with the size and hash of each file. The name of
the folder in the cache is a hash of the tokenizer and the sources. If either changes, a new folder
is written.

A folder is written under a temporary name (see circuits.files) and then renamed. The next process
that writes to the cache removes unfinished folders of killed processes.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from circuits.data.text import text_files
from circuits.data.windows import encode
from circuits.files import flush, in_words, sweep, workshop
from circuits.model import Vocabulary

VERSION = 2
"The version of the folder's format; for another version a new folder is written."
_ANEW = "delete the folder {}, and it is made anew"
SHARD = 2**27
"The number of tokens after which a new file begins; a document is never split."


class Shards(Sequence[np.ndarray]):
    """The tokens of each document, memory-mapped from a folder that `shards` wrote; for `Windows`.

    ValueError names a file that is missing, or whose size or hash has changed.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        index = _index(self.folder)
        dtype = np.dtype(index["dtype"])
        for name, (size, digest) in index["files"].items():
            _check(self.folder / name, size, digest)
        self.lengths: np.ndarray = np.load(self.folder / "lengths.npy", mmap_mode="r")
        self._ends = np.cumsum(self.lengths)
        self._first = [0]  # the number of tokens before each file, and in all files
        self._files = []
        for name in index["shards"]:
            tokens = index["files"][name][0] // dtype.itemsize
            mapped = np.memmap(self.folder / name, dtype, "r") if tokens else np.empty(0, dtype)
            self._files.append(mapped.view(np.ndarray))
            self._first.append(self._first[-1] + tokens)

    @property
    def tokens(self) -> int:
        """The number of tokens."""
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


def file_marks(*paths: Path | str) -> list[str]:
    """A hash of each text file of the paths, with .gz or .zst for a compressed file. The names and
    folders of the files do not matter."""
    return [
        digest(file) + (file.suffix if file.suffix in (".gz", ".zst") else "")
        for file in text_files(*paths)
    ]


def digest(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def shards(
    texts: Iterable[str],
    vocabulary: Vocabulary,
    cache: Path | str,
    *,
    sources: Sequence[Any],
    shard_tokens: int = SHARD,
) -> Shards:
    """The texts as Shards in a folder of `cache`. If this folder exists, no text is read.

    `sources` names the origin of the texts, as JSON values (`file_marks` of their files, or a
    dataset's name). The folder appears only when it is complete. ValueError if there is no text, or
    if the folder is damaged.
    """
    tokenizer = hashlib.sha256(vocabulary.tokenizer.to_str().encode()).hexdigest()
    about = {"version": VERSION, "sources": list(sources), "tokenizer": tokenizer}
    folder = Path(cache) / _hash(about)[:16]
    if not (folder / "index.json").is_file():
        sweep(Path(cache))
        with workshop(folder) as part, in_words(folder):
            _write(texts, vocabulary, part, about, shard_tokens)
            with suppress(OSError):  # another process may have written it first
                part.rename(folder)
    return Shards(folder)


def _index(folder: Path) -> dict[str, Any]:
    """The fields of index.json; ValueError if the file is missing or has changed."""
    file = folder / "index.json"
    if not file.is_file():
        raise ValueError(f"{folder} holds no shards: index.json is missing")
    try:
        index = json.loads(file.read_bytes())
        whole = index.pop("hash") == _hash(index)
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ValueError(f"{file} is damaged, or of another version: {_ANEW.format(folder)}")
    return index


def _hash(said: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _check(file: Path, size: int, known: str) -> None:
    there = file.stat().st_size if file.is_file() else 0
    if there != size or not file.is_file():
        found = f"holds {there} bytes, and {size} by index.json"
    elif digest(file) != known:
        found = "does not hold what was written"
    else:
        return
    raise ValueError(f"{file} {found}: {_ANEW.format(file.parent)}")


def _write(
    texts: Iterable[str], vocabulary: Vocabulary, folder: Path, about: dict, shard_tokens: int
) -> None:
    lengths: list[int] = []
    files: list[Path] = []
    opened, tokens = None, 0
    try:
        for row in encode(texts, vocabulary):
            if opened is None or tokens >= shard_tokens:
                if opened is not None:
                    opened.close()
                files.append(folder / f"tokens-{len(files):05d}.bin")
                opened, tokens = files[-1].open("wb"), 0
            opened.write(row.tobytes())
            tokens += len(row)
            lengths.append(len(row))
            dtype = row.dtype.str
    finally:
        if opened is not None:
            opened.close()
    if not lengths:
        raise ValueError("there is no text: `texts` gave no document")
    np.save(folder / "lengths.npy", np.array(lengths, dtype=np.int64))
    known = {file.name: [file.stat().st_size, digest(file)] for file in folder.iterdir()}
    names = [file.name for file in files]
    index = {**about, "dtype": dtype, "documents": len(lengths), "shards": names, "files": known}
    index["hash"] = _hash(index)
    (folder / "index.json").write_text(json.dumps(index, indent=2) + "\n")
    for file in folder.iterdir():
        flush(file)
