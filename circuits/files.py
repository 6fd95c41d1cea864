"""Files that are whole or absent, and folders that one process at a time writes to.

Everything that this package writes comes through here: under a temporary name, flush to disk,
then moved. A temporary name is unique without process ids, which repeat in containers. It is
locked for as long as its process lives, so that `sweep` removes the files of killed processes and
leaves those that are still being written.
"""

import os
import re
import shutil
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

PART = ".part-"
"How the name of an unfinished file or folder begins; a killed process may leave one behind."
LOCK = ".running"
"The file by which a process locks a folder; it holds the note of `Alone.note`."
_OURS = re.compile(re.escape(PART) + "[0-9a-f]{32}-.*")
_LARGEST = 2**28


@contextmanager
def in_words(file: Path | str) -> Iterator[None]:
    """An OSError inside of the block, whoever raises it, says which file could not be written."""
    try:
        yield
    except OSError as error:
        if str(error.strerror).startswith("could not write"):
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"could not write {file}: {reason}") from error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A temporary path beside `file` to write to, moved onto `file` when the block ends well.

    If the block fails (on a full disk, for example) the temporary file is removed, `file` stays as
    it was, and an OSError says so.
    """
    part = _part(file)
    with in_words(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = _made(part)
        try:
            yield part
            flush(part)
            os.replace(part, file)
            flush(file.parent)
        finally:
            with suppress(OSError):
                part.unlink()
            os.close(kept)


def write(file: Path | str, content: str | bytes) -> None:
    """Put a file there whole, text in UTF-8; an OSError names it."""
    with replacing(Path(file)) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def workshop(place: Path) -> Iterator[Path]:
    """A new folder beside `place` to make things in, which goes when the block ends."""
    part, kept = _part(place), None
    with in_words(place):
        part.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        kept = _locked(part)
        part.mkdir(exist_ok=True)  # swept before it was locked
    try:
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if kept is not None:
            os.close(kept)


def sweep(folder: Path) -> None:
    """Remove unfinished files of killed processes from a folder; files of living processes stay."""
    for left in folder.glob(f"{PART}*"):
        if not _OURS.fullmatch(left.name) or (kept := _locked(left)) is None:
            continue
        with suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        os.close(kept)


class Alone:
    """A folder that this process has locked, and a note in it that outlives the process."""

    def __init__(self, folder: Path, handle: int) -> None:
        self.file, self._handle = folder / LOCK, handle

    def note(self, text: str) -> None:
        """Leave a note for the next process, in case this one is killed."""
        with in_words(self.file):
            os.pwrite(self._handle, text.encode(), 0)
            os.ftruncate(self._handle, len(text.encode()))
            os.fsync(self._handle)

    def last_note(self) -> str:
        """The last note."""
        return os.pread(self._handle, 1000, 0).decode(errors="replace")


@contextmanager
def alone(folder: Path) -> Iterator[Alone]:
    """Keep a folder to this process; ValueError at once if another one has it.

    The lock dies with its process. Without locks (Windows, some network disks) a warning
    says so. The lock's file is removed at the end, unless it holds a note.
    """
    with in_words(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _kept_alone(folder / LOCK)
    here = Alone(folder, handle)
    try:
        yield here
    finally:
        if not here.last_note():
            with suppress(OSError):
                here.file.unlink()
        os.close(handle)


def _kept_alone(file: Path) -> int:
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is None:
                raise OSError("this system has no flock")
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise ValueError(
                f"another process is at work in {file.parent}: wait for it, or choose another "
                f"folder"
            ) from None
        except OSError as error:
            words = f"{file.parent} cannot be locked ({error}): start nothing else in it"
            warnings.warn(words, stacklevel=5)
            return handle
        if _is_still(handle, file):
            return handle
        os.close(handle)  # its last owner took it away in between


def read_text(file: Path, most: int = _LARGEST) -> str:
    """The text of a regular file of at most `most` bytes; ValueError in words for any other."""
    if not file.exists():
        raise FileNotFoundError(2, f"{file} does not exist")
    if not file.is_file():
        raise ValueError(f"{file} is no regular file")
    if file.stat().st_size > most:
        raise ValueError(f"{file} has {file.stat().st_size:,} bytes, more than {most:,}")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8: {error.reason} at {error.start}") from None


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _part(place: Path) -> Path:
    return place.with_name(f"{PART}{uuid.uuid4().hex}-{place.name}")


def _made(part: Path) -> int:
    """The handle of a new empty file, locked before anybody could have swept it."""
    while True:
        handle = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is not None:
            with suppress(OSError):  # no locks here: nobody sweeps either
                fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_still(handle, part):
            return handle
        os.close(handle)


def _locked(path: Path) -> int | None:
    """A handle that locks a path nobody else has locked; None if one has, or nobody can tell."""
    if fcntl is None:
        return None
    handle = None
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return handle
    except OSError:
        if handle is not None:
            os.close(handle)
        return None


def _is_still(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), file.stat())
    except FileNotFoundError:
        return False
