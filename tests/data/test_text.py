"""Documents from files, folders, globs and datasets, packed or not."""

import gzip
import sys
import time
import types

import numpy as np
import pytest

from circuits.data import documents, hub_documents


def test_documents_come_from_files_folders_and_gz_in_name_order(tmp_path):
    (tmp_path / "b.txt").write_text("second\n<|endoftext|>\nthird")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first"))
    (tmp_path / "picture.png").write_bytes(b"\xff")
    assert list(documents(tmp_path)) == ["first", "second", "third"]
    assert list(documents(tmp_path / "b.txt")) == ["second", "third"]


def zst(content):
    zstandard = pytest.importorskip("zstandard")
    return zstandard.ZstdCompressor().compress(content)


PACKED = {".txt": bytes, ".gz": gzip.compress, ".zst": zst}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_documents_are_those_between_the_marks_however_the_file_is_read(
    tmp_path, monkeypatch, ending, chunk
):
    monkeypatch.setattr("circuits.data.text.CHUNK", chunk)
    said = ["één\n\n<|endoftext|> in a line is text", "zwei\nlines", " three"]
    mark = "\n<|endoftext|>\n"
    content = f"<|endoftext|>\n{mark.join(said)}{mark} \n{mark}last\n".encode()
    file = tmp_path / f"some{ending}"
    file.write_bytes(PACKED[ending](content))
    assert list(documents(file)) == [*said, "last\n"]


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("chunk", [1, 2, 2**20])
def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_the_text(
    tmp_path, monkeypatch, ending, chunk
):
    monkeypatch.setattr("circuits.data.text.CHUNK", chunk)
    content = b"\xef\xbb\xbfone\r\nline\r\n<|endoftext|>\r\n\xef\xbb\xbftwo\n<|endoftext|>\r\n"
    file = tmp_path / f"some{ending}"
    file.write_bytes(PACKED[ending](content))
    assert list(documents(file)) == ["one\r\nline", "\ufefftwo"]  # elsewhere it is a character
    file.write_bytes(PACKED[ending](b"\xef\xbb\xbf<|endoftext|>\nb\xff"))
    with pytest.raises(ValueError, match=r"at byte 18$"):
        list(documents(file))


def test_a_line_is_read_in_time_that_grows_with_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr("circuits.data.text.CHUNK", 1)

    def seconds(length):
        (tmp_path / "line.txt").write_bytes(b"x" * length)
        start = time.process_time()
        assert list(map(len, documents(tmp_path))) == [length]
        return time.process_time() - start

    shorter = min(seconds(2**14) for _ in range(3))
    assert min(seconds(2**17) for _ in range(2)) < 24 * shorter  # 8 times the length; 64 is square


def test_files_of_white_space_are_named_as_holding_no_text(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(" \n<|endoftext|>\n\t")
    with pytest.raises(ValueError, match=r"there is no text in .*a.txt, .*b.txt: only white"):
        list(documents(tmp_path))


def test_several_frames_and_members_are_read_to_the_end(tmp_path):
    for ending, packed in PACKED.items():
        file = tmp_path / f"two{ending}"
        file.write_bytes(packed(b"one ") + packed(b"two"))
        assert list(documents(file)) == ["one two"]


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_short_is_named_with_its_byte(tmp_path, ending):
    content = np.random.default_rng(0).integers(97, 123, 500_000).astype(np.uint8).tobytes()
    packed = PACKED[ending](content)
    (tmp_path / f"cut{ending}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ValueError, match=rf"cut{ending} is damaged: after byte \d+ of its text"):
        list(documents(tmp_path))


@pytest.mark.parametrize("ending", PACKED)
def test_a_byte_that_is_no_text_is_named_by_its_place_in_the_file(tmp_path, ending):
    content = b"fine\n<|endoftext|>\n\xc3\xa9t\xe9"
    (tmp_path / f"bad{ending}").write_bytes(PACKED[ending](content))
    with pytest.raises(ValueError, match=rf"bad{ending} is not UTF-8 text: .* at byte 22$"):
        list(documents(tmp_path))


def test_globs_stand_for_their_files_in_name_order(tmp_path):
    for name in ("b.txt", "a.txt", "a.md", "deep/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(documents(tmp_path / "*.txt")) == ["a.txt", "b.txt"]
    assert list(documents(tmp_path / "**/*.txt")) == ["a.txt", "b.txt", "deep/c.txt"]
    with pytest.raises(ValueError, match=r"no file matches .*\*\.csv"):
        list(documents(tmp_path / "*.csv"))


def test_a_dataset_is_streamed_by_name(monkeypatch):
    asked = {}

    def load_dataset(path, **options):
        asked.update(options, path=path)
        yield from ({"text": "one"}, {"text": " "}, {"text": "two"})

    fake = types.ModuleType("datasets")
    monkeypatch.setattr(fake, "load_dataset", load_dataset, raising=False)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert list(hub_documents("some/set", split="test", name="en")) == ["one", "two"]
    assert asked == {"path": "some/set", "name": "en", "split": "test", "streaming": True}
    with pytest.raises(KeyError, match=r"no field 'story'; they have \['text'\]"):
        list(hub_documents("some/set", field="story"))


def test_a_package_that_is_not_there_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "x.zst").write_bytes(b"x")
    with pytest.raises(ValueError, match="needs the package `datasets`"):
        list(hub_documents("some/set"))
    with pytest.raises(ValueError, match="needs the package `zstandard`"):
        list(documents(tmp_path))
