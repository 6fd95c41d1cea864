"""The folder of a report. It is written beside its place, and moved there when it is whole."""

import difflib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from analyses.papers.figures import every
from analyses.papers.report import arguments, pages
from analyses.papers.report.entries import OURS, Entry
from analyses.papers.report.workers import one_by_one, side_by_side
from circuits.files import in_words, sweep, workshop


def write(
    out: Path,
    names: Sequence[str] = tuple(every()),
    model: str | None = None,
    jobs: int = 1,
    done: Callable[[Entry], None] = lambda entry: None,
) -> list[Entry]:
    """Draw the named figures and put the report in `out`; `done` is called after each figure.

    Each figure is drawn from its usual model and judged on all models that fit, or drawn from
    `model` and judged on it alone. `jobs` processes draw them. The report has the order of `names`.
    For a figure that cannot be drawn from `model` the report says why. A figure that fails is in
    the report with its error, and the others are drawn. An old report at `out` is replaced only
    when the new report is whole. KeyError for a figure that does not exist. ValueError for `jobs`
    below 1, and if `out` holds other files than a report.
    """
    names = list(dict.fromkeys(names))
    for name in names:
        known(name)
    if jobs < 1:
        raise ValueError(f"jobs are processes, 1 or more, got {jobs}")
    tasks = [(name, model or "") for name in names]
    with _replacing(out.resolve()) as staging:
        drawing = one_by_one(tasks, staging)
        if min(jobs, len(tasks)) > 1:
            drawing = side_by_side(tasks, staging, jobs)
        found = {}
        with closing(drawing):
            for entry in drawing:
                found[entry.name] = entry
                done(entry)
        entries = _with_own_pages([found[name] for name in names])
        for entry in entries:
            for file, text in entry.pages.items():
                (staging / file).write_text(text, encoding="utf-8")
        (staging / "index.html").write_text(pages.index(entries, staging), encoding="utf-8")
        if any(entry.figure.paper == "induction" for entry in entries):
            said = pages.statement(entries)
            (staging / arguments.FILE).write_text(said, encoding="utf-8")
        (staging / "results.json").write_text(_results(entries), encoding="utf-8")
    return entries


def known(name: str, among: Sequence[str] = tuple(every())) -> str:
    """The name itself, if a figure has it. Else KeyError with the nearest name and all names."""
    if name in among:
        return name
    ends = {figure: figure for figure in among} | {one.split("/")[-1]: one for one in among}
    near = difflib.get_close_matches(name, ends, 1, cutoff=0.5)
    hint = f"did you mean {ends[near[0]]!r}? " if near else ""
    raise KeyError(f"no figure {name!r}: {hint}there are {list(among)}")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """Give a new folder. It takes the place of the report at `out` if the block ends well."""
    foreign = _foreign(out)
    if foreign:
        raise ValueError(
            f"{out} holds files that no report wrote ({foreign}); choose another folder"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent)
    with in_words(out), workshop(out) as place:
        new, old = place / "new", place / "old"
        new.mkdir()
        yield new
        if foreign := _foreign(out):
            raise ValueError(f"{out} now holds files that no report wrote ({foreign})")
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(new, out)
        except BaseException:
            if old.exists():
                os.replace(old, out)
            raise


def _foreign(out: Path) -> str:
    """The name of a file in `out` that no report wrote, or nothing."""
    if not out.exists():
        return ""
    if not out.is_dir():
        return out.name
    there = list(out.iterdir())
    try:
        wrote = json.loads((out / "results.json").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        wrote = []
    known = set(map(str, wrote)) if isinstance(wrote, list) else set()
    return min((path.name for path in there if path.name not in known or not path.is_file()),
               default="")  # fmt: skip


def _with_own_pages(entries: Sequence[Entry]) -> list[Entry]:
    """The entries. An entry fails if it has another page under a name that is already taken."""
    taken: dict[str, str] = {}
    found = []
    for entry in entries:
        clash = [file for file in entry.pages if taken.get(file, entry.pages[file])
                 != entry.pages[file]]  # fmt: skip
        if clash:
            error = f"ValueError: another figure brings pages named {clash}"
            entry = Entry(entry.name, entry.model, seconds=entry.seconds, error=error)
        taken |= entry.pages
        found.append(entry)
    return found


def _results(entries: Sequence[Entry]) -> str:
    files = [file for entry in entries for file in entry.files]
    own = OURS if any(entry.figure.paper == "induction" for entry in entries) else OURS[:2]
    result = {
        "circuits": _own_version(),
        "torch": torch.__version__,
        "figures": {entry.name: _result(entry) for entry in entries},
        "files": sorted({*own, *files}),
    }
    return json.dumps(result, indent=2, ensure_ascii=False) + "\n"


def _result(entry: Entry) -> dict[str, str | bool | float | None]:
    verdict = entry.verdict
    tested = verdict is not None and verdict.state in ("holds", "does not hold")
    return {
        "title": entry.figure.title,
        "model": ", ".join(entry.models) or None,
        "judged": ", ".join(entry.judged) or None,
        "state": entry.state,
        "identity": entry.figure.identity,
        "same_as": entry.figure.same_as or None,
        "holds": verdict.holds if verdict and tested else None,
        "paper": entry.figure.claim,
        "here": verdict.here if verdict else None,
        "seconds": round(entry.seconds, 2),
        "error": entry.error or None,
        "left_out": entry.left_out or None,
    }


def _own_version() -> str:
    try:
        return version("transformer-circuits-toolkit")
    except PackageNotFoundError:
        return "not installed"
