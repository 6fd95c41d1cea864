"""Figures drawn one after another in this process, or side by side by several others."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path

import matplotlib

from analyses.papers.figures import EVERY
from analyses.papers.report.entries import Entry, drawn, in_words
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

    Figures that train models take longest and are drawn first, so that no process waits for them at
    the end. If a process dies, the figures that are left are drawn one at a time, and the one that
    a process dies of again has this as its error. However the generator ends, when it is closed no
    process is left; they also end if this one is killed.
    """
    left = sorted(tasks, key=_trains, reverse=True)
    while left:
        with _pool(min(jobs, len(left))) as pool:
            drawing = {pool.submit(work, task, folder): task for task in left}
            try:
                for done in as_completed(drawing):
                    entry = done.result()
                    left.remove(drawing[done])
                    yield entry
            except BrokenProcessPool as error:
                if jobs == 1:  # it draws in order: the first that is left ended the process
                    yield Entry(*left.pop(0), error=in_words(error))
                jobs = 1


def _trains(task: Task) -> bool:
    """Whether a figure trains models of its own."""
    return task[0] in EVERY and EVERY[task[0]].kind == "toy"


def work(task: Task, folder: Path) -> Entry:
    """One figure, drawn in a process of the pool."""
    return drawn(*task, folder, _loaded)


_loaded = functools.cache(load)


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that draw, ended at once when the block ends."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare)
    try:
        yield pool
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """What a process does before it draws: no windows, and an end when the first process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    matplotlib.use("agg")
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
