"""The folder of a training run: whose files are in it, and what is taken away at its end.

No folder is removed by its name. A run removes the files that runs write, one by one, and folders
that are empty then. A folder that holds a file which a run would write over is refused, unless the
note of a run that was cut off is in it (see `circuits.files.alone`).
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

WRITTEN = ("run.json", "recipe.json", "log.jsonl", "config.json", "model.safetensors",
           "tokenizer.json", "history.npz")  # fmt: skip
"What a finished run leaves."
INNER = {
    "snapshots": re.compile(r"(step|weights)-\d{8,}\.safetensors"),
    "history": re.compile(r"step-\d{8,}\.npz"),
    "weights": re.compile(r"weights-\d{8,}\.safetensors"),
}
"The folders in it, and the files that a run writes there."
TOKENS = ".tokens"
"Where tokenised text is until the run ends, if it is not to stay for others."
_SHARDS = re.compile(r"index\.json|lengths\.npy|tokens-\d+\.bin")
BEGUN, FINISHED = "begun", "finished"


class RunFolder:
    """A folder that this process has to itself for as long as it trains."""

    def __init__(self, out: Path, here: Alone | None) -> None:
        self.out, self._here = out, here
        self.finished = here is not None and here.noted() == FINISHED
        "Whether nothing is left to do: the run in it was killed while it tidied up."

    def begun(self) -> bool:
        """Whether there is a snapshot to go on from."""
        return bool(Snapshots(folder=self.out / "snapshots").files())

    def begin(self, about: dict[str, Any], same: Sequence[str]) -> None:
        """Put down in run.json what the run is, or compare with it what is gone on with: ValueError
        names what is not the `same`."""
        was = self._was() if self.begun() else {}
        if was:
            changed = [f"{name} was {was[name]!r} and is {about[name]!r} now"
                       for name in same if was.get(name, about[name]) != about[name]]  # fmt: skip
            if changed:
                raise ValueError(
                    f"the run in {self.out} is another one: {'; '.join(changed)}. Give it what it "
                    f"began with, or choose another folder"
                )
            return
        if not self.begun():
            _remove(_ours(self.out, "history"))  # of a run that is no more
        write(self.out / "run.json", json.dumps(about, indent=2) + "\n")

    def _was(self) -> dict[str, Any]:
        try:
            return recorded(self.out)
        except ValueError as error:
            warnings.warn(f"{error}; it is written anew", stacklevel=3)
            return {}

    def finish(self) -> None:
        """Say that all is there, and take away what only a run that goes on needs."""
        for file in _ours(self.out, "snapshots"):
            if file.name.startswith("weights-"):
                (self.out / "weights").mkdir(exist_ok=True)
                os.replace(file, self.out / "weights" / file.name)
        if self._here:
            self._here.note(FINISHED)
            self.tidy()

    def tidy(self) -> None:
        """What `finish` takes away; if it is killed there, the next start does it."""
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
        """After a start that failed: away with what it wrote, if it wrote no snapshot."""
        if self._here and not self.begun():
            _remove(self.out / name for name in ("tokenizer.json", "run.json"))
            self._here.note("")


@contextmanager
def entered(out: Path) -> Iterator[RunFolder]:
    """Keep a folder to this run; in a process group rank 0 does it for all.

    ValueError if another process is at work there, if it holds a model, or a file that no run
    wrote. A start that fails before its first snapshot leaves nothing behind.
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
        if here.noted() != BEGUN:
            _refuse_foreign(out)
        for place in (out, *(out / name for name in INNER)):
            sweep(place)
        here.note(BEGUN)
        try:
            yield folder
        except BaseException:
            folder.forget()
            raise


def recorded(out: Path) -> dict[str, Any]:
    """What run.json of a folder says, nothing without one; ValueError if it is damaged."""
    file = out / "run.json"
    if not file.exists():
        return {}
    try:
        said = json.loads(read_text(file))
    except ValueError as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not isinstance(said, dict):
        raise ValueError(f"{file} holds {type(said).__name__}, wanted fields by name")
    return said


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file, and a run wants a folder")
    if RunFolder(
        out, None
    ).begun():  # of a version that left no note; what it is, its snapshot tells
        return
    if (out / "config.json").exists():
        raise ValueError(f"{out} already holds a model: choose another folder, or move it away")
    found = [name for name in WRITTEN if os.path.lexists(out / name)]
    found += [f"{folder}/{file.name}" for folder in INNER for file in _ours(out, folder)]
    if found:
        raise ValueError(
            f"{out} holds files that no unfinished run wrote ({', '.join(found[:5])}) and that "
            f"this one would write over: choose another folder, or move them away"
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
