"""Files that are whole or absent: written under a temporary name, flushed to disk, then moved."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part-"
"How the name of an unfinished file begins; a killed process may leave one behind."


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary path beside `file` to write to, moved onto `file` when the block ends well.

    If it does not (a full disk, say) the temporary file goes, `file` is what it was, and an OSError
    says so.
    """
    part = file.with_name(f"{PART}{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield part
        flushed(part)
        os.replace(part, file)
        flushed(file.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"could not write {file}: {reason}") from error
    finally:
        with suppress(OSError):
            part.unlink()


def flushed(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
