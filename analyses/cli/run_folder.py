"""The folder of a training run: the files that a run writes there, and the files that it removes.

A run removes only files with the names that runs write, and folders that are empty after that.
ValueError for a folder with a file that a run would overwrite, unless the folder also holds the
note of an interrupted run (see `circuits.files.alone`).
"""

import json
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from circuits import distributed
from circuits.files import LOCK, Alone, alone, read_text, sweep, write
from circuits.training import Snapshots

WRITTEN = ("run.json", "run.toml", "recipe.json", "log.jsonl", "config.json", "model.safetensors",
           "tokenizer.json", "history.npz")  # fmt: skip
"The files of a finished run."
INNER = {
    "snapshots": re.compile(r"(step|weights)-\d{8,}\.safetensors"),
    "history": re.compile(r"step-\d{8,}\.npz"),
    "weights": re.compile(r"weights-\d{8,}\.safetensors"),
}
"The folders in the folder of a run, and the files that a run writes there."
TOKENS = ".tokens"
"The folder of the tokenised text until the run ends, if the options name no cache."
_SHARDS = re.compile(r"index\.json|lengths\.npy|tokens-\d+\.bin")
BEGUN, FINISHED = "begun", "finished"


class RunFolder:
    """The folder of a run, locked for this process while it trains."""

    def __init__(self, out: Path, here: Alone | None) -> None:
        self.out, self._here = out, here
        self.finished = here is not None and here.last_note() == FINISHED
        "True if the run had ended when it was killed: then only `tidy` is left."

    def has_snapshot(self) -> bool:
        """Whether there is a snapshot from which the run can resume."""
        return bool(Snapshots(folder=self.out / "snapshots").files())

    def begin(self, about: dict[str, Any], same: Sequence[str]) -> None:
        """Write `about` to run.json or, if the run resumes, compare the two: ValueError for a value
        that has changed and whose name is in `same`."""
        was = self._was() if self.has_snapshot() else {}
        if was:
            changed = [f"{name} was {was[name]!r} and is {about[name]!r} now"
                       for name in same if was.get(name, about[name]) != about[name]]  # fmt: skip
            if changed:
                raise ValueError(
                    f"the run in {self.out} is another one: {'; '.join(changed)}. Give the same "
                    f"values, or choose another folder"
                )
            return
        if not self.has_snapshot():
            _remove(_ours(self.out, "history"))  # of an earlier run
        write(self.out / "run.json", json.dumps(about, indent=2) + "\n")

    def _was(self) -> dict[str, Any]:
        try:
            return read_record(self.out)
        except ValueError as error:
            warnings.warn(f"{error}; it is written anew", stacklevel=3)
            return {}

    def finish(self) -> None:
        """Note that the run has ended, and remove the files that only an unfinished run needs."""
        for file in _ours(self.out, "snapshots"):
            if file.name.startswith("weights-"):
                (self.out / "weights").mkdir(exist_ok=True)
                os.replace(file, self.out / "weights" / file.name)
        if self._here:
            self._here.note(FINISHED)
            self.tidy()

    def tidy(self) -> None:
        """Remove the files that only an unfinished run needs. If this process is killed before, the
        next start does it."""
        for name in ("snapshots", "history"):
            _remove(_ours(self.out, name))
            _remove_empty(self.out / name)
        for folder in (self.out / TOKENS).glob("*"):
            _remove(file for file in folder.glob("*") if _SHARDS.fullmatch(file.name))
            _remove_empty(folder)
        _remove_empty(self.out / TOKENS)
        if self._here:
            self._here.note("")

    def forget(self) -> None:
        """Remove the files of a run that failed before its first snapshot."""
        if self._here and not self.has_snapshot():
            names = ("tokenizer.json", "tokenizer_config.json", "run.json", "run.toml")
            _remove(self.out / name for name in names)
            self._here.note("")


@contextmanager
def enter(out: Path) -> Iterator[RunFolder]:
    """Lock a folder for this run; in a process group rank 0 does it for all.

    ValueError if another process uses the folder, if it holds a model, or a file that the run would
    overwrite. A run that fails before its first snapshot leaves no files.
    """
    if distributed.rank() > 0:
        yield RunFolder(out, None)
        return
    if not (out / LOCK).exists():
        _refuse_foreign(out)
    with alone(out) as here:
        folder = RunFolder(out, here)
        if folder.finished:
            folder.tidy()
            yield folder
            return
        if here.last_note() != BEGUN:
            _refuse_foreign(out)
        for place in (out, *(out / name for name in INNER)):
            sweep(place)
        here.note(BEGUN)
        try:
            yield folder
        except BaseException:
            folder.forget()
            raise


def read_record(out: Path) -> dict[str, Any]:
    """The fields of a folder's run.json; {} if there is none; ValueError if it is damaged."""
    file = out / "run.json"
    if not file.exists():
        return {}
    try:
        said = json.loads(read_text(file))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not isinstance(said, dict):
        raise ValueError(f"{file} holds {type(said).__name__}, expected fields by name")
    return said


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, and a run needs a folder")
    if RunFolder(out, None).has_snapshot():  # earlier versions wrote snapshots without a note
        return
    if (out / "config.json").exists():
        raise ValueError(f"{out} already holds a model: choose another folder, or move it away")
    found = [name for name in WRITTEN if os.path.lexists(out / name)]
    found += [f"{folder}/{file.name}" for folder in INNER for file in _ours(out, folder)]
    if found:
        raise ValueError(
            f"{out} holds files that no unfinished run wrote ({', '.join(found[:5])}) and that "
            f"this run would overwrite: choose another folder, or move them away"
        )


def _ours(out: Path, folder: str) -> list[Path]:
    return sorted(file for file in (out / folder).glob("*") if INNER[folder].fullmatch(file.name))


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        with suppress(OSError):
            file.unlink()


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
