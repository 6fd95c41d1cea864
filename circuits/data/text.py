"""Documents as strings: from files, folders and globs of text, or from a dataset by name."""

import codecs
import glob
import gzip
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from circuits.model import BOS

SUFFIXES = (".txt", ".md", ".rst", ".py", ".gz", ".zst")
CHUNK = 2**20


def documents(*paths: Path | str) -> Iterator[str]:
    """The documents of text files, plain or compressed (.gz, .zst), as an iterator.

    A document ends at a line that holds only <|endoftext|> (with Windows line ends too), and at the
    end of a file. Inside a line <|endoftext|> stays in the text, and the tokenizer makes BOS of it.
    A byte-order mark at the start of a file is left out. ValueError names a file that is damaged or
    not UTF-8, with the byte of its text where the fault is, and paths or globs without any text.
    """
    files, empty = text_files(*paths), True
    for file in files:
        for text in _documents(file):
            empty = False
            yield text
    if empty:
        named = ", ".join(map(str, files[:3])) + (", ..." if files[3:] else "")
        raise ValueError(f"there is no text in {named}: only white space")


def text_files(*paths: Path | str) -> list[Path]:
    """The files of paths, of folders (all text files in them and below) and of globs. The files of
    a folder or glob are in the order of their names."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
            if not files:
                raise ValueError(f"no text in {path}: files must end in one of {SUFFIXES}")
        elif not path.exists() and glob.has_magic(str(path)):
            files = [p for p in map(Path, sorted(glob.glob(str(path), recursive=True)))]
            files = [p for p in files if p.is_file()]
            if not files:
                raise ValueError(f"no file matches {path}")
        elif path.exists():
            files = [path]
        else:
            raise ValueError(f"{path} does not exist")
        found += files
    return found


def hub_documents(
    dataset: str, *, field: str = "text", split: str = "train", **options: Any
) -> Iterator[str]:
    """The texts of a Hugging Face dataset, streamed; `options` go to `datasets.load_dataset`.

    ValueError without the package `datasets`, KeyError if the rows have no such field.
    """
    try:
        from datasets import load_dataset  # an optional package that takes seconds to import
    except ImportError:
        raise ValueError(f"reading the dataset {dataset!r} needs the package `datasets`") from None
    for row in load_dataset(dataset, split=split, streaming=True, **options):
        if field not in row:
            raise KeyError(
                f"the rows of {dataset!r} have no field {field!r}; they have {list(row)}"
            )
        if row[field].strip():
            yield row[field]


def _documents(file: Path) -> Iterator[str]:
    mark, start, size, lines = BOS.encode(), 0, 0, []
    for number, line in enumerate(_lines(file)):
        if number == 0 and line.startswith(codecs.BOM_UTF8):
            start, line = len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
        if _unended(line) == mark:
            yield from _decoded(_unended(b"".join(lines)), file, start)
            start, size, lines = start + size + len(line), 0, []
        else:
            lines.append(line)
            size += len(line)
    yield from _decoded(b"".join(lines), file, start)


def _unended(line: bytes) -> bytes:
    """The bytes without a line end."""
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _decoded(raw: bytes, file: Path, start: int) -> Iterator[str]:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = start + error.start
        raise ValueError(f"{file} is not UTF-8 text: {error.reason} at byte {byte}") from None
    if text.strip():
        yield text


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file with their ends, after decompression."""
    begun: list[bytes] = []  # the pieces of a line that continues in the next chunk
    done = 0
    chunks = {".gz": _gunzipped, ".zst": _unzstandard}.get(file.suffix, _plain)(file)
    try:
        for chunk in chunks:
            done += len(chunk)
            if ended := chunk.rfind(b"\n") + 1:
                yield from BytesIO(b"".join([*begun, chunk[:ended]]))
                begun = []
            begun.append(chunk[ended:])
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{file} is damaged: after byte {done} of its text, {error or 'it ends too early'}"
        ) from None
    if rest := b"".join(begun):
        yield rest


def _plain(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            yield chunk


def _gunzipped(file: Path) -> Iterator[bytes]:
    with gzip.open(file) as opened:
        while chunk := opened.read1(CHUNK):
            yield chunk


def _unzstandard(file: Path) -> Iterator[bytes]:
    try:
        import zstandard  # an optional package
    except ImportError:
        raise ValueError(
            f"{file} is compressed with Zstandard: reading it needs the package `zstandard`"
        ) from None
    frame = None
    for raw in _plain(file):
        while raw:
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            try:
                yield frame.decompress(raw)
            except zstandard.ZstdError as error:
                raise EOFError(str(error)) from None
            raw, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("it ends too early")
