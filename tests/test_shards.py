"""Text tokenised once: what comes back is what went in, and nothing is read twice."""

import numpy as np
import pytest

from circuits.data import Windows, tokenized, train_tokenizer
from circuits.shards import file_marks, shards
from circuits.text import documents

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
    expected = tokenized(TEXTS, VOCABULARY)
    assert len(kept) == len(TEXTS) and kept.tokens == sum(map(len, expected))
    assert all(np.array_equal(a, b) for a, b in zip(kept, expected, strict=True))
    files = list(kept.folder.glob("tokens-*.bin"))
    assert len(files) == {1: 40, 10_000: 1}.get(shard_tokens, len(files)) and len(files) <= 40


def test_windows_on_shards_are_windows_on_memory(tmp_path):
    mapped, held = written(tmp_path, shard_tokens=50), tokenized(TEXTS, VOCABULARY)
    a, b = (Windows(docs, 16, VOCABULARY.bos, repeats=0.2, seed=3) for docs in (mapped, held))
    assert all(a.batch(step, 8).equal(b.batch(step, 8)) for step in range(12))


def test_documents_that_are_empty_take_no_room_and_lose_nothing(tmp_path):
    rows = written(tmp_path, texts=["", "a", "", "", "b", ""], shard_tokens=1)
    assert [VOCABULARY.to_string(row.tolist()) for row in rows] == ["", "a", "", "", "b", ""]


def test_the_same_sources_and_tokenizer_are_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("first")
    marks = file_marks(tmp_path)
    cache = tmp_path / "cache"
    first = written(cache, texts=documents(tmp_path / "a.txt"), sources=marks)
    again = written(cache, texts=never(), sources=file_marks(tmp_path))
    assert again.folder == first.folder
    (tmp_path / "a.txt").write_text("first, and more")
    changed = written(cache, texts=documents(tmp_path / "a.txt"), sources=file_marks(tmp_path))
    assert changed.folder != first.folder and changed.tokens > first.tokens
    other = shards(TEXTS, train_tokenizer(TEXTS, 265), cache, sources=marks)
    assert other.folder not in (first.folder, changed.folder)


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
