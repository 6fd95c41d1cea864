"""Tokenizers from files: a tokenizer.json, and the tokenizer_config.json beside it."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from circuits.files import read_text, write
from circuits.model import BOS, Vocabulary

CONFIG = "tokenizer_config.json"
"The file beside a tokenizer.json that names its BOS and EOS."
_GROWTH = 100
"The largest factor by which a tokenizer may lengthen a text."


def read_tokenizer(file: Path) -> Vocabulary:
    """The vocabulary in a tokenizer.json, without its truncation and padding. BOS and EOS are those
    of the tokenizer_config.json beside it, if there is one.

    ValueError for a file that is no tokenizer, or that would make a text too long.
    """
    beside = file.with_name(CONFIG)
    try:
        fields = json.loads(read_text(file))
        for part in ("normalizer", "decoder"):
            if (growth := _growth(fields.get(part))) > _GROWTH:
                raise ValueError(f"its {part} makes a text {growth:.0g} times as long")
        whole = {**fields, "truncation": None, "padding": None}
        said = json.loads(read_text(beside)) if os.path.lexists(beside) else {}
        return Vocabulary(Tokenizer.from_str(json.dumps(whole)), **special_tokens(said))
    except OSError:
        raise
    except Exception as error:  # tokenizers raises nothing more special
        raise ValueError(f"{file} is no tokenizer: {error}") from None


def write_tokenizer(words: Vocabulary, file: Path) -> None:
    """Write a tokenizer.json, and beside it a tokenizer_config.json if BOS or EOS is another token
    than <|endoftext|>."""
    write(file, words.tokenizer.to_str(pretty=True))
    own = {"bos_token": words.bos_token, "eos_token": words.eos_token}
    if set(own.values()) == {BOS}:
        file.with_name(CONFIG).unlink(missing_ok=True)
    else:
        write(file.with_name(CONFIG), json.dumps(own, indent=2) + "\n")


def special_tokens(said: Mapping[str, Any]) -> dict[str, str]:
    """The BOS and the EOS that a tokenizer_config.json names, as arguments of a Vocabulary. A
    tokenizer without a BOS begins a text with its EOS."""
    bos, eos = (_content(said.get(f"{name}_token")) for name in ("bos", "eos"))
    named = {"bos_token": bos or eos, "eos_token": eos}
    return {name: token for name, token in named.items() if token is not None}


def _content(token: Any) -> str | None:
    """The text of a special token, which is written as a text or as a dict with its content."""
    return token.get("content") if isinstance(token, dict) else token


def _growth(part: Any) -> float:
    """The largest number of characters that a normalizer or decoder makes from one character."""
    if isinstance(part, list):
        return math.prod(map(_growth, part))
    if not isinstance(part, dict):
        return 1.0
    if part.get("type") == "Precompiled":  # a table of replacements that cannot be read here
        return math.inf
    if part.get("type") == "Replace":
        return max(1.0, len(str(part.get("content"))))
    return math.prod(map(_growth, part.values()))
