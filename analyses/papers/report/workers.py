"""Figures drawn one after another in this process, or side by side by several others."""

import functools
import multiprocessing
import signal
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

import matplotlib

from analyses.papers.report.entries import Entry, drawn
from circuits.io import load

Task = tuple[str, str]
"The name of a figure and of the model to draw it from."


def one_by_one(tasks: Sequence[Task], folder: Path) -> Generator[Entry, None, None]:
    """Each figure drawn here, in turn; a model is loaded once."""
    loaded = functools.cache(load)
    for name, model in tasks:
        yield drawn(name, model, folder, loaded)


def side_by_side(tasks: Sequence[Task], folder: Path, jobs: int) -> Generator[Entry, None, None]:
    """Figures drawn by `jobs` processes, each as it is done; every process loads a model once.

    A process that dies is an error of the figure it was at, and another takes its place. However
    the generator ends, when it is closed no process is left; they also end if this one is killed.
    """
    waiting, at_work = deque(tasks), dict[Connection, Task]()
    staff: dict[Connection, SpawnProcess] = {}
    try:
        for _ in range(min(jobs, len(tasks))):
            _give(_hired(staff, folder), waiting, at_work)
        while at_work:
            for pipe in wait(list(at_work)):
                assert isinstance(pipe, Connection)
                task = at_work.pop(pipe)
                try:
                    entry = pipe.recv()
                except (EOFError, OSError):
                    process = _dismissed(staff, pipe)
                    entry = Entry(*task, error=f"its process died with code {process.exitcode}")
                    pipe = _hired(staff, folder) if waiting else None
                if pipe is not None and waiting:
                    _give(pipe, waiting, at_work)
                yield entry
    finally:
        for pipe in list(staff):
            staff[pipe].terminate()
            _dismissed(staff, pipe)


def _hired(staff: dict[Connection, SpawnProcess], folder: Path) -> Connection:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    staff[here] = context.Process(target=work, args=(there, folder), daemon=True)
    staff[here].start()
    there.close()  # so that each end hears when the other is gone
    return here


def _give(pipe: Connection, waiting: deque[Task], at_work: dict[Connection, Task]) -> None:
    at_work[pipe] = waiting.popleft()
    pipe.send(at_work[pipe])


def _dismissed(staff: dict[Connection, SpawnProcess], pipe: Connection) -> SpawnProcess:
    process = staff.pop(pipe)
    pipe.close()
    process.join()
    return process


def work(pipe: Connection, folder: Path) -> None:
    """What a process does: draw the figures that come through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    matplotlib.use("agg")
    loaded = functools.cache(load)
    with suppress(EOFError, ConnectionError):
        while True:
            name, model = pipe.recv()
            pipe.send(drawn(name, model, folder, loaded))
