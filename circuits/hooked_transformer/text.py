"""Text and tokens with HookedTransformer's arguments, and the tokenizer that scripts expect."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

from circuits.io import vocabulary, vocabulary_by_name
from circuits.model import GPT, Ids, Vocabulary, checked_tokens, is_text, vocabulary_of

Side = Literal["left", "right"]


class Tokenizer(Vocabulary):
    """A Vocabulary with the names of a tokenizer of transformers that scripts use. The pad is BOS.
    `padding_side` is the model's padding side and can be set."""

    padding_side: Side

    def __init__(
        self, words: Vocabulary, padding_side: Side = "right", name_or_path: str = ""
    ) -> None:
        super().__init__(words.tokenizer, words.bos_token, words.eos_token)
        self.padding_side, self.name_or_path = padding_side, name_or_path

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "padding_side":
            checked_side(value)
        elif name.startswith(("bos_", "eos_", "pad_", "add_", "padding")) and "eos" in vars(self):
            if getattr(self, name, None) == value:
                return
            raise AttributeError(
                f"{name} cannot be set: BOS and pad are {self.bos_token}, EOS is {self.eos_token}, "
                f"and BOS goes before a text if cfg.default_prepend_bos is True"
            )
        super().__setattr__(name, value)

    @property
    def bos_token_id(self) -> int:
        """The id of BOS; pad_token_id is the same."""
        return self.bos

    pad_token_id = bos_token_id

    @property
    def pad_token(self) -> str:
        """The text of the pad: that of BOS."""
        return self.bos_token

    @property
    def eos_token_id(self) -> int:
        """The id of EOS."""
        return self.eos

    @property
    def vocab_size(self) -> int:
        """The number of tokens, with special tokens."""
        return self.size

    def __len__(self) -> int:
        return self.size

    def get_vocab(self) -> dict[str, int]:
        """The id of every token, by its string."""
        return self.tokenizer.get_vocab()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without BOS."""
        return self.ids(text)

    def decode(self, tokens: Int[Tensor, " pos"] | Sequence[int] | int) -> str:
        """The text of a row of tokens."""
        return self.to_string(tokens)

    def batch_decode(self, tokens: Int[Tensor, "batch pos"] | Sequence[Any]) -> list[str]:
        """The text of each row of tokens."""
        return [self.to_string(row) for row in tokens]


class SpeaksAsBefore(GPT):
    """GPT's methods for text, with HookedTransformer's signatures. The default of `prepend_bos` is
    cfg.default_prepend_bos, the default of `padding_side` is the model's `default_padding_side`."""

    _side: Side | None = None
    _tokenizer: Tokenizer | None
    _missing: str | None = None

    @property
    def tokenizer(self) -> Tokenizer | None:  # type: ignore[override]
        """The given tokenizer, or the tokenizer cfg.tokenizer_name, fetched at first use. OSError
        if it cannot be fetched; later uses raise it again without another try."""
        if self._tokenizer is None and self._missing is not None:
            raise OSError(self._missing)
        name = self.cfg.tokenizer_name  # type: ignore[attr-defined]
        if self._tokenizer is None and name is not None:
            try:
                self.tokenizer = vocabulary_by_name(name, self.cfg.d_vocab)
            except OSError as error:
                self._missing = str(error)
                raise
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = self._missing = None
        if tokenizer is not None:
            made = vocabulary(tokenizer, self.cfg.d_vocab)
            name = getattr(tokenizer, "name_or_path", self.cfg.tokenizer_name)  # type: ignore[attr-defined]
            side: Any = getattr(tokenizer, "padding_side", self._side) or "right"
            self._tokenizer = Tokenizer(made, side, name or "")

    @property
    def default_padding_side(self) -> Side:
        """The side on which texts are padded: the tokenizer's padding_side."""
        return (self._side or "right") if self._tokenizer is None else self._tokenizer.padding_side

    @default_padding_side.setter
    def default_padding_side(self, side: Side) -> None:
        self._side = checked_side(side)
        if self._tokenizer is not None:
            self._tokenizer.padding_side = side

    def set_tokenizer(self, tokenizer: Any, default_padding_side: Side | None = None) -> None:
        """Use this tokenizer: a fast tokenizer of transformers, a Vocabulary, or a Tokenizer of
        tokenizers. ValueError for any other, and for a tokenizer with more tokens than d_vocab."""
        self.tokenizer = tokenizer
        if default_padding_side is not None:
            self.default_padding_side = checked_side(default_padding_side)

    def to_tokens(
        self,
        input: str | Sequence[str],
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        move_to_device: bool = True,
        truncate: bool = True,
    ) -> Int[Tensor, "batch pos"]:
        """The tokens of one text or several. Shorter texts are padded with BOS on the
        padding side. With `truncate` longer texts are cut to n_ctx tokens."""
        tokens, _ = self.read(input, prepend_bos, padding_side, truncate)
        return tokens.to(self.W_E.device) if move_to_device else tokens

    def read(
        self,
        input: str | Sequence[str],
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        truncate: bool = True,
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """The tokens of `to_tokens`, and a mask that is False at pads."""
        rows = vocabulary_of(self).rows(input, self.begins(prepend_bos))
        rows = [row[: self.cfg.n_ctx] for row in rows] if truncate else rows
        side = checked_side(padding_side or self.default_padding_side)
        return vocabulary_of(self).pad(rows, side)

    def mask_of(
        self,
        tokens: Integer[Tensor, "*batch pos"],
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        *,
        first: bool = True,
    ) -> Bool[Tensor, "*batch pos"] | None:
        """False at pads, True elsewhere. Pads are all BOS at the start of a row, or at
        its end if the padding side is right. If texts begin with BOS, one of them is BOS and no
        pad; with `first=False` the row continues a text and has no BOS. None without a tokenizer.

        TransformerLens uses the same rule. If a BOS at the edge is a token of the text,
        give the model an attention_mask.
        """
        try:
            if self.tokenizer is None:
                return None
        except OSError as error:
            raise OSError(f"pads cannot be found without a tokenizer: give an attention_mask, or a "
                          f"tokenizer. {error}") from error  # fmt: skip
        right = checked_side(padding_side or self.default_padding_side) == "right"
        ends = (tokens.flip(-1) if right else tokens) == vocabulary_of(self).bos
        pads = ends.long().cumprod(-1).sum(-1, keepdim=True)
        bos = int(first and self.begins(prepend_bos))
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        return (
            (places < tokens.shape[-1] - pads) | (places < bos) if right else places >= pads - bos
        )

    def begins(self, prepend_bos: bool | None) -> bool:
        """Whether BOS goes before a text: `prepend_bos`, or cfg.default_prepend_bos for None."""
        return self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos  # type: ignore[attr-defined]

    def to_string(self, tokens: Any) -> Any:
        """The text of a row of tokens, or a list with the text of each of several rows."""
        ids = torch.as_tensor(tokens)
        if ids.ndim == 2:
            return [super(SpeaksAsBefore, self).to_string(row) for row in ids]
        return super().to_string(ids)

    def to_str_tokens(self, input: Any, prepend_bos: bool | None = None) -> Any:
        """Each token of a text or of a row of tokens as a string; for a list, a list of such
        lists."""
        if isinstance(input, list):
            return [self.to_str_tokens(one, prepend_bos) for one in input]
        if not isinstance(input, str):
            return super().to_str_tokens(torch.atleast_1d(torch.as_tensor(input)))
        return super().to_str_tokens(self.to_tokens(input, prepend_bos))

    def to_single_str_token(self, int_token: int) -> str:
        """The token with this id as a string."""
        return super().to_string(int_token)

    def get_token_position(
        self,
        single_token: str | int,
        input: str | Int[Tensor, " pos"] | Int[Tensor, "1 pos"],
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = None,
    ) -> int:
        """The first or last position of a token in a text or a row of tokens; ValueError if the
        token is not there."""
        tokens = self.to_tokens(input, prepend_bos) if isinstance(input, str) else input
        token = (
            self.to_single_token(single_token) if isinstance(single_token, str) else single_token
        )
        found = (tokens.flatten() == token).nonzero().flatten().tolist()
        if not found or mode not in ("first", "last") or tokens.numel() != tokens.shape[-1]:
            raise ValueError(f"expected mode first or last and {single_token!r} in one row, got "
                             f"mode={mode!r}, {list(tokens.shape)} and {found}")  # fmt: skip
        return found[0 if mode == "first" else -1]

    def generate(
        self,
        input: Ids | str = "",
        max_new_tokens: int = 10,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        do_sample: bool = True,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float = 1.0,
        freq_penalty: float = 0.0,
        use_past_kv_cache: bool = True,
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        return_type: Literal["input", "str", "tokens"] = "input",
        verbose: bool = True,
        *,
        seed: int | None = None,
        **rest: Any,
    ) -> Any:
        """The input and its continuation by the model: see GPT.generate. Without a `seed` torch's
        global generator gives one. `verbose` has no effect: nothing is printed.

        Pads are masked by `mask_of`. ValueError for a freq_penalty.
        """
        if freq_penalty != 0:
            raise ValueError(f"freq_penalty={freq_penalty} is not supported: change the logits in "
                             f"a hook, or in your own loop")  # fmt: skip
        if not isinstance(input, Tensor) and not is_text(input):
            input = checked_tokens(input, self.cfg)
        if isinstance(input, Tensor) and rest.get("attention_mask") is None:
            rest["attention_mask"] = self.mask_of(input, prepend_bos, padding_side)
        return super().generate(
            input,
            max_new_tokens,
            stop_at_eos=stop_at_eos,
            eos_token_id=eos_token_id,
            do_sample=do_sample,
            top_k=top_k,
            top_p=top_p,
            temperature=temperature,
            use_past_kv_cache=use_past_kv_cache,
            prepend_bos=self.begins(prepend_bos),
            return_type=return_type,
            seed=drawn_seed() if seed is None else seed,
            **rest,
        )


def checked_side(side: Any) -> Side:
    """The padding side; ValueError if it is not left or right."""
    if side not in ("left", "right"):
        raise ValueError(f"padding_side={side!r}; choose left or right")
    return side


def drawn_seed() -> int:
    """A seed from torch's global generator, which torch.manual_seed sets."""
    return int(torch.randint(2**31, ()))
