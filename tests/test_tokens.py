import pytest
import torch

from circuits.data import train_tokenizer

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


def test_a_batch_of_texts_of_one_length(vocabulary):
    assert vocabulary.to_tokens(["The cat", "The mat"]).shape[0] == 2


def test_a_single_token_is_found_and_given_back(vocabulary):
    token = vocabulary.to_single_token(" cat")
    assert vocabulary.to_string(token) == " cat"
    assert vocabulary.to_string(torch.tensor([token, token])) == " cat cat"
