"""The text of a run: what is trained on, what is held out, and the tokens that are kept."""

import pytest

from analyses.cli.corpus import EVERY, Corpus
from circuits import GPT, GPTConfig, load, save
from circuits.data import train_tokenizer
from circuits.io import write_tokenizer
from circuits.model import Vocabulary
from tests.conftest import TINY
from tests.model.test_vocabulary import llama_like


@pytest.fixture(scope="module")
def words(text):
    return train_tokenizer([text.read_text()], 290)


def test_held_out_documents_are_never_trained_on(text):
    corpus = Corpus(data=[text])
    kept, unseen = list(corpus.texts()), list(corpus.unseen())
    assert len(unseen) == 3 and not set(kept) & set(unseen)
    assert len(kept) + len(unseen) == 2 * EVERY + 10
    assert list(Corpus(data=[text], held_out=[text]).texts()) == sorted(kept + unseen, key=(
        text.read_text().index
    ))  # fmt: skip


@pytest.mark.parametrize("many", [None, 1])
def test_of_a_document_that_is_alone_the_end_is_held_out(tmp_path, many, words):
    said = " ".join(f"word{i}" for i in range(200)) + "\n"
    file = tmp_path / "one.txt"
    file.write_text(said if many is None else f"{said}<|endoftext|>\nmore")
    corpus = Corpus(data=[file], documents=many)
    (kept,), (unseen,) = corpus.texts(), corpus.unseen()
    assert kept + unseen == (said if many is None else said[:-1])
    assert unseen.startswith(" word") and 0.05 < len(unseen) / len(said) <= 0.1
    assert list(Corpus(data=[file], held_out=[file], documents=many).texts()) == [kept + unseen]
    assert words.to_string(corpus.evaluation(words, 8, 1)[0]).startswith("<|endoftext|> word")
    assert len(corpus.windows(words, 8, tmp_path, seed=0).docs) == 1
    file.write_text("s")
    with pytest.raises(ValueError, match=r"the only document, 's', is too short"):
        list(Corpus(data=[file]).texts())


def test_tokenised_text_is_kept_for_other_runs_where_asked(tmp_path, text, monkeypatch, words):
    corpus = Corpus(data=[text])
    first = corpus.windows(words, 16, tmp_path, seed=0).batch(0, 4)
    monkeypatch.setattr(Corpus, "texts", lambda self: iter(["something else"]))
    assert corpus.windows(words, 16, tmp_path, seed=0).batch(0, 4).equal(first)


def test_a_dataset_is_read_by_name_up_to_so_many_documents(monkeypatch):
    monkeypatch.setattr(
        "analyses.cli.corpus.hub_documents", lambda name: (f"{name} {i}" for i in "123")
    )
    corpus = Corpus(dataset="some/set", documents=2)
    assert (list(corpus.unseen()), list(corpus.texts())) == (["some/set 1"], ["some/set 2"])
    assert corpus.about()["dataset"] == "some/set"


def test_a_corpus_of_two_kinds_is_refused(text):
    with pytest.raises(ValueError, match="either text files or the name of a dataset"):
        Corpus(data=[text], dataset="some/set")
    for documents in (0, -1):
        with pytest.raises(ValueError, match=f"documents must be 1 or more, got {documents}"):
            Corpus(data=[text], documents=documents)
    assert GPTConfig.from_json(load("repeats-2l").cfg.to_json()) == load("repeats-2l").cfg


def test_a_tokenizer_that_was_not_asked_for_is_not_taken(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n<|endoftext|>\nthe dog sat on the cat and the mat")
    corpus, file = Corpus(data=[text], held_out=[text]), tmp_path / "tokenizer.json"
    save(GPT(GPTConfig(**{**TINY, "d_vocab": 262}), train_tokenizer(["a b"], 257)), tmp_path)
    assert corpus.vocabulary(file, 260).size == 260  # one that lies there
    assert corpus.vocabulary(file, 300, resumed=True).size == 260
    with pytest.raises(ValueError, match="has 260 tokens, but d_vocab is 258"):
        corpus.vocabulary(file, 258, resumed=True)
    other = tmp_path / "other.json"
    other.write_text(train_tokenizer(["a b"], 257).tokenizer.to_str())
    with pytest.raises(ValueError, match="began with the tokenizer in"):
        corpus.vocabulary(file, 260, other, resumed=True)
    assert corpus.vocabulary(file, 260, other).size == 257
    with pytest.raises(ValueError, match=r"d_vocab must be 257 or more, .* got 256"):
        corpus.vocabulary(file, 256)


def test_a_given_tokenizer_keeps_its_bos_in_the_folder_of_the_run(tmp_path, text):
    given, file = tmp_path / "given.json", tmp_path / "run" / "tokenizer.json"
    write_tokenizer(Vocabulary(llama_like(), "<s>", "</s>"), given)
    words = Corpus(data=[text]).vocabulary(file, 4, given)
    again = Corpus(data=[text]).vocabulary(file, 4, given, resumed=True)
    assert words.bos == again.bos == 2 and words.eos == again.eos == 3
