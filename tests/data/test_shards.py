"""Text tokenised once: what comes back is what went in, and nothing is read twice."""

import os

import numpy as np
import pytest

from circuits.data import Windows, documents, file_marks, shards, tokenize, train_tokenizer

TEXTS = [f"document {i} says {'word ' * (i % 7)}" for i in range(40)]
VOCABULARY = train_tokenizer(TEXTS, 270)


def written(folder, texts=TEXTS, **options):
    return shards(texts, VOCABULARY, folder, **{"sources": ["ours"], **options})


def never():
    raise AssertionError("the texts were read again")
    yield


@pytest.mark.parametrize("shard_tokens", [1, 50, 10_000])
def test_shards_hold_every_token_of_every_document(tmp_path, shard_tokens):
    kept = written(tmp_path, shard_tokens=shard_tokens)
    expected = tokenize(TEXTS, VOCABULARY)
    assert len(kept) == len(TEXTS) and kept.tokens == sum(map(len, expected))
    assert all(np.array_equal(a, b) for a, b in zip(kept, expected, strict=True))
    files = list(kept.folder.glob("tokens-*.bin"))
    assert len(files) == {1: 40, 10_000: 1}.get(shard_tokens, len(files)) and len(files) <= 40


def test_windows_on_shards_are_windows_on_memory(tmp_path):
    mapped, held = written(tmp_path, shard_tokens=50), tokenize(TEXTS, VOCABULARY)
    a, b = (Windows(docs, 16, VOCABULARY.bos, repeats=0.2, seed=3) for docs in (mapped, held))
    assert all(a.batch(step, 8).equal(b.batch(step, 8)) for step in range(12))


def test_documents_that_are_empty_take_no_room_and_lose_nothing(tmp_path):
    rows = written(tmp_path, texts=["", "a", "", "", "b", ""], shard_tokens=1)
    assert [VOCABULARY.to_string(row.tolist()) for row in rows] == ["", "a", "", "", "b", ""]


def test_the_same_text_and_tokenizer_are_read_once_whatever_the_files_are_called(tmp_path):
    def of(file, texts=None):
        texts = documents(file) if texts is None else texts
        return written(tmp_path / "cache", texts=texts, sources=file_marks(file))

    def put(name, text):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        os.utime(tmp_path / name, (10**9, 10**9))
        return tmp_path / name

    first = of(put("a/x.txt", "first"))
    assert of(put("b/y.txt", "first"), never()).folder == first.folder
    changed = of(put("c/x.txt", "other"))  # of the same name, size and time
    assert changed.folder != first.folder and not np.array_equal(changed[0], first[0])
    assert np.array_equal(of(put("a/x.txt", "other"), never())[0], changed[0])
    marks = file_marks(tmp_path / "a")
    other = shards(TEXTS, train_tokenizer(TEXTS, 265), tmp_path / "cache", sources=marks)
    assert other.folder not in (first.folder, changed.folder)


def test_order_and_packing_are_part_of_what_was_read(tmp_path):
    for name in ("a.txt", "b.txt", "a.zst"):
        (tmp_path / name).write_text("same" if name[0] == "a" else "other")
    a, b, packed = (file_marks(tmp_path / name)[0] for name in ("a.txt", "b.txt", "a.zst"))
    assert len({a, b, packed}) == 3
    assert file_marks(tmp_path / "b.txt", tmp_path / "a.txt") == [b, a]


def test_what_a_killed_process_left_is_cleared_away_and_the_living_are_left_alone(tmp_path):
    left = tmp_path / f".part-{'0' * 32}-abc"
    ours = tmp_path / ".part-ours"
    for folder, file in ((left, "tokens-00000.bin"), (ours, "mine.txt")):
        folder.mkdir()
        (folder / file).write_bytes(b"12")

    def slow():
        yield from TEXTS[:20]
        assert len(written(tmp_path, sources=["another"])) == len(TEXTS)
        yield from TEXTS[20:]

    kept = written(tmp_path, texts=slow())
    assert [VOCABULARY.to_string(row.tolist()) for row in kept] == TEXTS
    assert not left.exists() and (ours / "mine.txt").read_bytes() == b"12"
    assert len(list(tmp_path.iterdir())) == 3  # ours, and two folders of shards


def test_shards_appear_when_they_are_whole(tmp_path):
    def breaks():
        yield from TEXTS[:10]
        raise ValueError("bad.txt is not UTF-8 text")

    with pytest.raises(ValueError, match=r"bad.txt"):
        written(tmp_path, texts=breaks())
    assert not list(tmp_path.iterdir())
    assert len(written(tmp_path)) == len(TEXTS)


def test_a_file_of_the_wrong_length_is_named(tmp_path):
    folder = written(tmp_path).folder
    file = folder / "tokens-00000.bin"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(ValueError, match=r"tokens-00000.bin holds \d+ bytes, and \d+ by"):
        written(tmp_path)


@pytest.mark.parametrize("name", ["tokens-00000.bin", "lengths.npy", "index.json"])
def test_a_flipped_bit_is_noticed_wherever_it_is_and_the_file_is_named(tmp_path, name):
    folder = written(tmp_path).folder
    whole = (folder / name).read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        changed = bytearray(whole)
        changed[place] ^= 1
        (folder / name).write_bytes(changed)
        with pytest.raises(ValueError, match=rf"{name} .*delete the folder .*, and it is made"):
            written(tmp_path)
    (folder / name).write_bytes(whole)
    assert len(written(tmp_path)) == len(TEXTS)
