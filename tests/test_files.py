"""Files are whole or absent, what killed processes left goes, and a folder has one process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from circuits import files
from circuits.files import LOCK, PART, alone, in_words, read_text, replacing, sweep, workshop, write

HOLDS = """
import sys, time
from pathlib import Path
from circuits.files import alone, replacing, workshop
here = Path(sys.argv[1])
with alone(here) as own, replacing(here / "file") as part, workshop(here / "report") as folder:
    own.note("begun")
    part.write_text("half")
    (folder / "page").write_text("half")
    print("there", flush=True)
    time.sleep(60)
"""


def parts(folder):
    return [path for path in folder.iterdir() if path.name.startswith(PART)]


def test_what_a_process_writes_is_swept_when_it_was_killed_and_not_while_it_lives(tmp_path):
    mine = tmp_path / f"{PART}1-mine"
    mine.write_text("no name of ours")
    other = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE)
    assert other.stdout and other.stdout.readline() == b"there\n"
    sweep(tmp_path)
    assert len(parts(tmp_path)) == 3
    start = time.monotonic()
    with pytest.raises(ValueError, match="another process is at work in"), alone(tmp_path):
        pass
    assert time.monotonic() - start < 0.5
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    sweep(tmp_path)
    assert parts(tmp_path) == [mine] and not (tmp_path / "file").exists()
    with alone(tmp_path) as own:
        assert own.last_note() == "begun"
        own.note("")
    assert not (tmp_path / LOCK).exists()


def test_names_are_unique_in_processes_of_one_number(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 1)
    with replacing(tmp_path / "a") as one, replacing(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1" and not parts(tmp_path)


def test_an_error_of_the_disk_names_the_file_and_leaves_what_was_there(tmp_path):
    write(tmp_path / "a", "old")
    with (
        pytest.raises(OSError, match=r"could not write .*/a: No space left") as full,
        in_words(tmp_path),
        replacing(tmp_path / "a") as part,
    ):
        part.write_text("new")
        raise OSError(28, "No space left on device")
    assert full.value.errno == 28 and (tmp_path / "a").read_text() == "old"
    with pytest.raises(OSError, match=r"could not write .*/a/b: File exists"):
        write(tmp_path / "a" / "b", "")
    with pytest.raises(ZeroDivisionError), workshop(tmp_path / "b") as folder:
        write(folder / "c", f"{1 / 0}")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_cannot_be_locked_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    with (
        pytest.warns(UserWarning, match="cannot be locked .*start nothing else in it"),
        alone(tmp_path),
    ):
        write(tmp_path / "a", "")
    sweep(tmp_path)


def test_only_regular_text_of_bounded_size_is_read(tmp_path):
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "raw").write_bytes(b"\xff")
    (tmp_path / "long").write_text("12345")
    for name, words in [("zero", "no regular file"), ("pipe", "no regular file"),
                        ("raw", "no text in UTF-8"), ("long", "5 bytes, more than 4")]:  # fmt: skip
        with pytest.raises(ValueError, match=words):
            read_text(tmp_path / name, 4)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_text(tmp_path / "none")
