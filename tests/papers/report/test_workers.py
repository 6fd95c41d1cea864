"""Processes draw the same report as one alone, and none outlives it, however it ends."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyses import report
from analyses.papers.report import workers
from tests.papers.report.by_hand import QUICK, contents

ROOT = Path(__file__).parent.parent.parent.parent


def test_processes_draw_the_same_report_as_one_alone(tmp_path, silent):
    done = []
    alone = report.write(tmp_path / "alone", QUICK, silent)
    shared = report.write(tmp_path / "shared", QUICK, silent, 3, done.append)
    assert contents(tmp_path / "alone") == contents(tmp_path / "shared")
    assert [entry.name for entry in shared] == [entry.name for entry in alone] == QUICK
    assert sorted(entry.name for entry in done) == sorted(QUICK)
    assert not multiprocessing.active_children()


def test_figures_that_train_models_come_first_and_all_others_stay_in_order():
    names = ("framework/corner", "induction/cipher", "nothing", "induction/triggers")
    tasks = [(name, "none") for name in names]
    assert workers.longest_first(tasks) == [tasks[1], tasks[3], tasks[0], tasks[2]]


def dies(task, folder):
    """In place of `workers.work`: a process that is killed over one figure."""
    if task[0] == QUICK[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return report.Entry(*task, error="alive")


def test_a_process_that_dies_fails_its_figure_and_the_others_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "work", dies)
    entries = report.write(tmp_path / "report", QUICK, "none", 2)
    assert [entry.error for entry in entries][1:] == ["alive", "alive"]
    assert entries[0].error.startswith("BrokenProcessPool: A process")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_report_leaves_the_old_one_and_nothing_else(tmp_path, silent, jobs):
    out = tmp_path / "report"
    report.write(out, QUICK[:1], silent)
    before = contents(out)

    def interrupt(entry):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        report.write(out, QUICK, silent, jobs, interrupt)
    assert contents(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]
    assert not multiprocessing.active_children()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_a_command_that_is_ended(tmp_path, silent, number):
    command = [sys.executable, "-m", "analyses.cli", "reproduce", "--model", silent, "--jobs", "2"]
    ended = subprocess.Popen(
        [*command, "--out", tmp_path / "report"], cwd=ROOT, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert ended.stdout is not None
    with ended.stdout:
        assert ended.stdout.readline()  # a figure is drawn, others are at work
        (os.killpg if number == signal.SIGINT else os.kill)(ended.pid, number)
        assert ended.wait(60) in (130, 143, -signal.SIGKILL)
    assert gone(ended.pid)
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def gone(group, seconds=30):
    """Whether the last process of a group ends in time."""
    for _ in range(10 * seconds):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False
