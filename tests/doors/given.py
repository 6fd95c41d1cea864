"""The model, the tokens and the helpers of the tests of bad input."""

from contextlib import contextmanager

import pytest
import torch

from circuits import GPT, GPTConfig
from circuits.data import (
    train_tokenizer,
)
from circuits.io import load_weights
from tests.conftest import TINY


def cfg(**fields):
    return GPTConfig(**{**TINY, **fields})


model, tokens = GPT(cfg()), torch.zeros(1, 4, dtype=torch.long)
vocabulary = train_tokenizer(["one two one two one"], 262)
talker = GPT(cfg(d_vocab=262), vocabulary)


@contextmanager
def refused(kind, message):
    with pytest.raises(kind) as caught:
        yield
    said = str(caught.value.args[0]) if caught.value.args else ""
    assert caught.type is kind and message in said, f"{caught.type.__name__}: {said}"


def first(logits):
    return logits[:, 0]


def written(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    return file


def damaged(**change):
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    for key, value in change.items():
        name = key.replace("__", ".")
        if value is None:
            weights.pop(name)
        else:
            weights[name] = value
    load_weights(model, weights)
