"""Text to tokens and back, and the checks of tokens, masks and streams as inputs of a model."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, Shaped
from tokenizers import Tokenizer
from torch import Tensor

from circuits.model.config import GPTConfig

BOS = "<|endoftext|>"
"""The BOS of most tokenizers: it begins every text, ends generated text, and separates documents in
training."""
Ids = Integer[Tensor, "*batch pos"] | Integer[np.ndarray, "*batch pos"] | Sequence[Any]
"Tokens as input: a tensor or array of any integer type, or lists of ids."


class Vocabulary:
    """A `tokenizers.Tokenizer` that returns tensors. The token `bos_token` begins every text, and
    the token `eos_token`, by default the same, ends it. ValueError for a token that the tokenizer
    does not have."""

    def __init__(
        self, tokenizer: Tokenizer, bos_token: str = BOS, eos_token: str | None = None
    ) -> None:
        self.tokenizer, self.bos_token = tokenizer, bos_token
        self.eos_token = bos_token if eos_token is None else eos_token
        self.size = tokenizer.get_vocab_size()
        self.bos = self._id(bos_token, "BOS")
        self.eos = self._id(self.eos_token, "EOS")

    def _id(self, token: str, serves_as: str) -> int:
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"the tokenizer has no {token!r} token, which serves as {serves_as}")
        return found

    def to_tokens(
        self, text: str | Sequence[str], *, prepend_bos: bool = True
    ) -> Int[Tensor, "batch pos"]:
        """The tokens of one text, or of several texts with equal numbers of tokens, BOS first.

        The text of BOS in a text becomes the token BOS, as in Hugging Face's tokenizers. ValueError
        if the numbers of tokens differ (see `to_padded_tokens`), or for a text without tokens.
        """
        rows = self.rows(text, prepend_bos)
        if len({len(row) for row in rows}) != 1:
            raise ValueError(
                f"texts must have one common length, got lengths {[len(row) for row in rows]}; "
                f"to_padded_tokens pads them, and gives the attention_mask that goes with it"
            )
        return torch.tensor(rows)

    def to_padded_tokens(
        self,
        text: str | Sequence[str],
        *,
        padding_side: Literal["left", "right"] = "right",
        prepend_bos: bool = True,
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """The tokens of texts of any lengths, padded with BOS, and their `attention_mask`, False at
        pads: give both to the model. ValueError for a text without tokens."""
        return self.pad(self.rows(text, prepend_bos), padding_side)

    def pad(
        self, rows: Sequence[Sequence[int]], padding_side: Literal["left", "right"]
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """Rows of tokens as a batch, padded with BOS, and its attention_mask."""
        if padding_side not in ("left", "right"):
            raise ValueError(f"padding_side={padding_side!r}; choose left or right")
        tokens = torch.full((len(rows), max(map(len, rows))), self.bos)
        mask = torch.zeros(tokens.shape, dtype=torch.bool)
        for row, own in enumerate(rows):
            there = slice(len(own)) if padding_side == "right" else slice(-len(own), None)
            tokens[row, there] = torch.tensor(own)
            mask[row, there] = True
        return tokens, mask

    def rows(self, text: str | Sequence[str], prepend_bos: bool = True) -> list[list[int]]:
        """The tokens of each text; ValueError for a text without tokens, and for another type."""
        texts = [text] if isinstance(text, str) else list(text)
        for one in texts:
            if not isinstance(one, str):
                raise ValueError(f"expected text, or a tensor of tokens, got {one!r}")
        bos = [self.bos] if prepend_bos else []
        rows = [bos + self.ids(one) for one in texts]
        if not rows or not all(rows):
            raise ValueError(f"each text must have at least one token, got lengths "
                             f"{[len(row) for row in rows]}")  # fmt: skip
        return rows

    def ids(self, text: str) -> list[int]:
        """The tokens of one text, without BOS; ValueError as in `checked_text`."""
        return self.tokenizer.encode(checked_text(text), add_special_tokens=False).ids

    def to_string(self, tokens: Int[Tensor, " pos"] | Sequence[int] | int) -> str:
        """The text of a row of tokens; bytes that are not UTF-8 become U+FFFD."""
        return self.tokenizer.decode(_ids(tokens), skip_special_tokens=False)

    def to_str_tokens(
        self, text: str | Int[Tensor, " pos"] | Int[Tensor, "1 pos"], *, prepend_bos: bool = True
    ) -> list[str]:
        """Each token of a text or of a row of tokens as a string."""
        tokens = self.to_tokens(text, prepend_bos=prepend_bos) if isinstance(text, str) else text
        if tokens.ndim == 2 and len(tokens) != 1:
            raise ValueError(f"expected one row of tokens, got {len(tokens)}")
        return [self.to_string(token) for token in _ids(tokens.flatten())]

    def to_single_token(self, text: str) -> int:
        """The one token of this text; ValueError unless the text is one token."""
        ids = self.ids(text)
        if len(ids) != 1:
            parts = [self.to_string(token) for token in ids]
            raise ValueError(f"{text!r} is {len(ids)} tokens, {parts}, not one")
        return ids[0]


def _ids(tokens: Tensor | Sequence[int] | int) -> list[int]:
    if isinstance(tokens, Tensor):
        tokens = tokens.tolist()
    return [tokens] if isinstance(tokens, int) else list(tokens)  # type: ignore[arg-type]


def checked_text(text: str) -> str:
    """The text unchanged; ValueError if UTF-8 cannot encode it because of a lone surrogate. Python
    makes these from bytes of the command line, or of files, that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text, {text[error.start]!r}, is not a character: "
            "the text was read from bytes that are not UTF-8"
        ) from None
    return text


def is_text(given: Any) -> bool:
    """True for a text, and for a list that contains a text; any other input is read as tokens."""
    listed = isinstance(given, Sequence) and any(isinstance(one, str) for one in given)
    return isinstance(given, str) or listed


def checked_tokens(given: Any, cfg: Any) -> Int[Tensor, "batch pos"]:
    """The tokens as a batch of int64; a single row becomes a batch of one row. ValueError if this
    model cannot read them.
    """
    tokens = given if isinstance(given, Tensor) else _tensor(given)
    tokens = tokens[None] if tokens.ndim == 1 else tokens
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(f"tokens must be [batch pos] and not empty, got {list(tokens.shape)}")
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise ValueError(
            f"tokens must be integers, got {tokens.dtype}; a residual stream needs start_at_layer"
        )
    check_length(tokens.shape[1], cfg)
    tokens = tokens.long()  # before the comparison: d_vocab may not fit into a smaller type
    if _outside(tokens, cfg.d_vocab):
        row, pos = ((tokens < 0) | (tokens >= cfg.d_vocab)).nonzero()[0].tolist()
        raise ValueError(
            f"token {tokens[row, pos].item()} at batch {row}, position {pos} is outside of the "
            f"vocabulary: d_vocab={cfg.d_vocab}, tokens are 0 to {cfg.d_vocab - 1}"
        )
    return tokens


def _outside(tokens: Tensor, d_vocab: int) -> bool:
    """True if a value is outside of the vocabulary. Under torch.func.vmap values cannot be read:
    False, and torch's embedding raises the error."""
    low, high = tokens.aminmax()
    try:
        return bool(low < 0 or high >= d_vocab)
    except RuntimeError as error:
        if "vmap" in str(error):
            return False
        raise


def _tensor(given: Any) -> Tensor:
    """An array, or lists of ids, as a tensor."""
    wanted = "expected tokens: a tensor, an array or lists of one length of integers"
    if is_text(given):
        raise ValueError(f"{wanted}; got text: write model.to_tokens(text)")
    try:
        array = np.asarray(given)
    except (ValueError, TypeError):
        raise ValueError(f"{wanted}; got lists of several lengths, or no numbers") from None
    if array.dtype.kind not in "iu":
        raise ValueError(f"{wanted}; got {type(given).__name__} of {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))


def checked_mask(
    mask: Shaped[Tensor, "*batch pos"] | None,
    of: Shaped[Tensor, "batch pos *d_model"],
    *,
    piece: bool = False,
) -> Bool[Tensor, "batch pos"] | None:
    """The attention mask `of` tokens or a stream as booleans; None if it masks nothing. ValueError
    if it does not fit, and for a row that has only pads, unless the row is a `piece` of a longer
    row."""
    if mask is None:
        return None
    mask = mask[None] if mask.ndim == 1 else mask
    if mask.shape != of.shape[:2]:
        raise ValueError(f"attention_mask must be {list(of.shape[:2])}, got {list(mask.shape)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("attention_mask must be 1 at tokens and 0 at pads, and nothing else")
    real = mask.bool().to(of.device)
    if not piece and not real.any(1).all():
        row = int((~real.any(1)).nonzero()[0])
        raise ValueError(f"attention_mask has no token in row {row}")
    return None if real.all() else real


def check_words(vocabulary: Vocabulary | None, cfg: GPTConfig) -> None:
    """ValueError if a vocabulary has more tokens than the model."""
    if vocabulary is not None and vocabulary.size > cfg.d_vocab:
        raise ValueError(
            f"the tokenizer has {vocabulary.size} tokens, and the model reads d_vocab={cfg.d_vocab}"
        )


def checked_stream(stream: Any, cfg: Any) -> Float[Tensor, "batch pos d_model"]:
    """A copy of a residual stream, so that hooks may write to it; ValueError for another input."""
    if not isinstance(stream, Tensor) or stream.ndim != 3 or stream.shape[2] != cfg.d_model:
        got = list(stream.shape) if isinstance(stream, Tensor) else type(stream).__name__
        raise ValueError(f"start_at_layer needs a stream [batch pos {cfg.d_model}], got {got}")
    check_length(stream.shape[1], cfg)
    return stream.clone()


def check_length(length: int, cfg: Any) -> None:
    """ValueError if the context has fewer positions than `length`."""
    if length > cfg.n_ctx:
        raise ValueError(
            f"{length} tokens are {length - cfg.n_ctx} more than the context of n_ctx={cfg.n_ctx}"
        )
