"""Draw figures one after another in this process, or side by side in several processes."""

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
"The name of a figure, and the name of the model that it is drawn from."


def one_by_one(tasks: Sequence[Task], folder: Path) -> Generator[Entry, None, None]:
    """Draw each figure in turn in this process. A model is loaded once."""
    loaded = functools.cache(load)
    for name, model in tasks:
        yield drawn(name, model, folder, loaded)


def side_by_side(tasks: Sequence[Task], folder: Path, jobs: int) -> Generator[Entry, None, None]:
    """Draw figures in `jobs` processes, and yield each figure when it is ready. Every process loads
    a model once.

    Figures that train models take longest and are drawn first, so that no process waits for them at
    the end. If a process dies, the remaining figures are drawn one at a time. If a process dies
    again, the figure that it drew has this as its error. No process is left when the generator is
    closed. The processes also end if this process is killed.
    """
    left = longest_first(tasks)
    while left:
        with _pool(min(jobs, len(left))) as pool:
            drawing = {pool.submit(work, task, folder): task for task in left}
            try:
                for done in as_completed(drawing):
                    entry = done.result()
                    left.remove(drawing[done])
                    yield entry
            except BrokenProcessPool as error:
                if jobs == 1:  # figures are drawn in order, so the first one left ended the process
                    yield Entry(*left.pop(0), error=in_words(error))
                jobs = 1


def longest_first(tasks: Sequence[Task]) -> list[Task]:
    """The figures that train models of their own, then all others, in their order."""
    return sorted(tasks, key=lambda task: task[0] not in EVERY or EVERY[task[0]].kind != "toy")


def work(task: Task, folder: Path) -> Entry:
    """Draw one figure in a process of the pool."""
    return drawn(*task, folder, _loaded)


_loaded = functools.cache(load)


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that draw. They are ended when the block ends."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _prepare)
    try:
        yield pool
    finally:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """Prepare a process that draws: it opens no windows, and ends when the first process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the first process decides
    matplotlib.use("agg")
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()
