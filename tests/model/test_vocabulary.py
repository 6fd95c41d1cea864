import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from analyses import Task, attention, long_context, masks, patching, patterns
from circuits import GPT, GPTConfig
from circuits.data import tokenize, train_tokenizer
from circuits.model import Vocabulary, checked_tokens
from circuits.training import next_token_loss

TEXT = "The cat sat on the mat. Café, naïve 猫\n\tdef f(x):\n"


@pytest.fixture(scope="module")
def vocabulary():
    return train_tokenizer([TEXT * 3], 300)


def test_text_survives_tokens_and_back(vocabulary):
    tokens = vocabulary.to_tokens(TEXT, prepend_bos=False)
    assert vocabulary.to_string(tokens[0]) == TEXT
    assert vocabulary.to_string(vocabulary.to_tokens(TEXT)[0]) == "<|endoftext|>" + TEXT


def test_tokens_begin_with_bos_unless_told_otherwise(vocabulary):
    with_bos, without = (vocabulary.to_tokens("The cat", prepend_bos=b) for b in (True, False))
    assert with_bos[0, 0] == vocabulary.bos == 0
    assert with_bos[:, 1:].equal(without)


def test_str_tokens_join_to_the_text_and_words_keep_their_leading_space(vocabulary):
    parts = vocabulary.to_str_tokens("The cat sat", prepend_bos=False)
    assert "".join(parts) == "The cat sat" and " cat" in parts
    assert vocabulary.to_str_tokens(vocabulary.to_tokens("The cat sat")[0])[1:] == parts


def test_special_text_in_a_prompt_is_one_token_and_does_not_vanish(vocabulary):
    tokens = vocabulary.to_tokens("a<|endoftext|>b", prepend_bos=False)
    assert tokens[0, 1] == vocabulary.bos and tokens.shape == (1, 3)


def llama_like(tokens=("<s>", "</s>")) -> Tokenizer:
    """A tokenizer with a BOS and an EOS of its own."""
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(["a", "b", *tokens])}, "a"))
    made.pre_tokenizer = WhitespaceSplit()
    made.add_special_tokens([*tokens])
    return made


def test_a_tokenizer_may_have_another_bos_and_another_eos():
    words = Vocabulary(llama_like(), "<s>", "</s>")
    assert words.to_tokens("b a").tolist() == [[2, 1, 0]] and (words.bos, words.eos) == (2, 3)
    tokens, mask = words.to_padded_tokens(["b", "a b"])
    assert tokens.tolist() == [[2, 1, 2], [2, 0, 1]] and mask.tolist()[0] == [True, True, False]
    model = GPT(GPTConfig(**SHAPED, d_vocab=4), words).eval()
    assert model.bos == 2
    model.unembed.b_U = torch.nn.Parameter(100.0 * torch.eye(4)[words.eos])
    assert model.generate(torch.tensor([[2, 1]]), 3).tolist() == [[2, 1, 3]]  # EOS ends it, not BOS


def test_a_special_token_that_the_tokenizer_lacks_is_refused_with_its_role():
    with pytest.raises(ValueError, match=r"no '<\|endoftext\|>' token, which serves as BOS"):
        Vocabulary(llama_like())
    with pytest.raises(ValueError, match="no '<end>' token, which serves as EOS"):
        Vocabulary(llama_like(), "<s>", "<end>")


def test_a_batch_of_texts_of_one_length(vocabulary):
    assert vocabulary.to_tokens(["The cat", "The mat"]).shape[0] == 2


def test_a_single_token_is_found_and_given_back(vocabulary):
    token = vocabulary.to_single_token(" cat")
    assert vocabulary.to_string(token) == " cat"
    assert vocabulary.to_string(torch.tensor([token, token])) == " cat cat"


SHAPED = {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_head": 4, "n_ctx": 8}
TYPES = [torch.int8, torch.uint8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64]


@pytest.mark.parametrize("d_vocab", [100, 2048])
def test_tokens_come_as_any_integers_and_in_any_box(d_vocab):
    model = GPT(GPTConfig(**SHAPED, d_vocab=d_vocab))
    ids = [[1, 5, 99], [0, 7, 3]]
    wanted = model(torch.tensor(ids))
    boxes = [torch.tensor(ids).to(kind) for kind in TYPES]
    for given in (*boxes, ids, tuple(ids), np.array(ids), np.array(ids, np.uint16)):
        assert model(given).equal(wanted)
        _, cache = model.run_with_cache(given)
        assert cache["tokens"].dtype == torch.int64 and cache["tokens"].tolist() == ids
        assert model.generate(given, 1).shape == (2, 4)
    assert model([1, 5, 99]).equal(model(torch.tensor([1, 5, 99])))
    rows = torch.tensor(ids)
    assert next_token_loss(model, rows.to(torch.uint16)).equal(next_token_loss(model, rows))


@pytest.mark.parametrize("given, words", [
    (np.array([[1.0, 2.0]]), "got ndarray of float64"), 
    ([[1, 2], [3]], "lists of several lengths"),
    ([True, False], "got list of bool"), (torch.tensor([[3, 200]]).short(), "token 200 at batch 0"),
    ("text", "got text: write model.to_tokens"),
    ({"input_ids": [1]}, "got dict of object"), (torch.tensor([[3, 200]]).byte(), "token 200 at"),
])  # fmt: skip
def test_what_is_no_token_is_refused_in_words(given, words):
    cfg = GPTConfig(**SHAPED, d_vocab=100)
    with pytest.raises(ValueError, match=words):
        checked_tokens(given, cfg)


def test_analyses_read_what_the_model_reads(vocabulary):
    model = GPT(GPTConfig(**SHAPED, d_vocab=vocabulary.size), vocabulary)
    text = "The cat"
    tokens = model.to_tokens(text)

    def first(logits):
        return logits[:, 0]

    scores = {
        "previous token": attention.previous_token,
        "positional": attention.positional,
        "entropy": patterns.entropy,
        "capture": patterns.capture,
        "long": lambda m, t: long_context.behaviours(m, t, masks={"first": masks.to_first}),
        "patched": lambda m, t: patching.heads(Task(m, t, tokens, first)),
    }
    for name, score in scores.items():
        wanted = score(model, tokens)
        for given in (text, tokens[0], tokens[0].tolist(), tokens.numpy(), tokens.short()):
            assert score(model, given).identical(wanted), name


@pytest.mark.parametrize("read", [
    lambda words, text: words.to_tokens(text), lambda words, text: words.to_single_token(text),
    lambda words, text: tokenize([text], words), lambda words, text: train_tokenizer([text], 300),
])  # fmt: skip
def test_bytes_that_were_no_text_are_named_as_such(vocabulary, read):
    with pytest.raises(ValueError, match=r"character 2 of the text, '\\udcff', .* not UTF-8"):
        read(vocabulary, "a " + b"\xff".decode(errors="surrogateescape"))
