"""Text in and out with HookedTransformer's arguments, and what scripts ask of a tokenizer."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int, Integer
from torch import Tensor

from circuits.io import vocabulary, vocabulary_by_name
from circuits.model import BOS, GPT, Ids, Vocabulary, checked_tokens, is_text, vocabulary_of

Side = Literal["left", "right"]


class Tokenizer(Vocabulary):
    """A Vocabulary that also answers to what scripts ask of a tokenizer of transformers. All its
    special tokens are <|endoftext|>. Its `padding_side` is that of its model and can be set."""

    bos_token = eos_token = pad_token = BOS
    padding_side: Side

    def __init__(
        self, tokenizer: Any, padding_side: Side = "right", name_or_path: str = ""
    ) -> None:
        super().__init__(tokenizer)
        self.padding_side, self.name_or_path = padding_side, name_or_path

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "padding_side":
            checked_side(value)
        elif name.startswith(("bos_", "eos_", "pad_", "add_", "padding")):
            if getattr(self, name, None) == value:
                return
            raise AttributeError(
                f"{name} cannot be set: BOS, end and filling are {BOS}, and BOS goes before a text "
                f"where cfg.default_prepend_bos says so"
            )
        super().__setattr__(name, value)

    @property
    def bos_token_id(self) -> int:
        """The number of <|endoftext|>, as are the next two."""
        return self.bos

    eos_token_id = pad_token_id = bos_token_id

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""
        return self.size

    def __len__(self) -> int:
        return self.size

    def get_vocab(self) -> dict[str, int]:
        """Every token and its number."""
        return self.tokenizer.get_vocab()

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, no special one added."""
        return self.ids(text)

    def decode(self, tokens: Int[Tensor, " pos"] | Sequence[int] | int) -> str:
        """The text of a row of tokens."""
        return self.to_string(tokens)

    def batch_decode(self, tokens: Int[Tensor, "batch pos"] | Sequence[Any]) -> list[str]:
        """The text of each row of tokens."""
        return [self.to_string(row) for row in tokens]


class SpeaksAsBefore(GPT):
    """GPT's methods for text, with HookedTransformer's signatures. `prepend_bos` is by default
    cfg.default_prepend_bos, `padding_side` the model's `default_padding_side`."""

    _side: Side | None = None
    _tokenizer: Tokenizer | None
    _missing: str | None = None

    @property
    def tokenizer(self) -> Tokenizer | None:  # type: ignore[override]
        """The tokenizer that was given, or that of cfg.tokenizer_name, fetched when it is first
        wanted; OSError if it cannot be, without another try."""
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
            self._tokenizer = Tokenizer(made.tokenizer, side, name or "")

    @property
    def default_padding_side(self) -> Side:
        """Where texts are filled up, and filling is looked for: the tokenizer's padding_side."""
        return (self._side or "right") if self._tokenizer is None else self._tokenizer.padding_side

    @default_padding_side.setter
    def default_padding_side(self, side: Side) -> None:
        self._side = checked_side(side)
        if self._tokenizer is not None:
            self._tokenizer.padding_side = side

    def set_tokenizer(self, tokenizer: Any, default_padding_side: Side | None = None) -> None:
        """Speak in the tokens of this one: a fast tokenizer of transformers, a Vocabulary of ours,
        or a Tokenizer of tokenizers; ValueError for another, or one with more tokens than d_vocab.
        """
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
        """Tokens of one text or several, BOS first: shorter ones are filled up with <|endoftext|>
        on one side, and with `truncate` longer ones are cut to n_ctx."""
        tokens, _ = self.read(input, prepend_bos, padding_side, truncate)
        return tokens.to(self.W_E.device) if move_to_device else tokens

    def read(
        self,
        input: str | Sequence[str],
        prepend_bos: bool | None = None,
        padding_side: Side | None = None,
        truncate: bool = True,
    ) -> tuple[Int[Tensor, "batch pos"], Bool[Tensor, "batch pos"]]:
        """The tokens of `to_tokens`, and which of them are no filling."""
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
        """Which tokens are no filling: all but the <|endoftext|> at their beginning, or, padded on
        the right, at their end. A row that is the `first` of its text keeps one as BOS, where
        texts begin with one. None without a tokenizer.

        TransformerLens knows filling by this, and by this alone: where an <|endoftext|> at the edge
        is meant, give the model an attention_mask.
        """
        try:
            if self.tokenizer is None:
                return None
        except OSError as error:
            raise OSError(f"which tokens are filling is not known: give an attention_mask, or a "
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
        """Whether BOS goes before a text: as is said, or else as the config says."""
        return self.cfg.default_prepend_bos if prepend_bos is None else prepend_bos  # type: ignore[attr-defined]

    def to_string(self, tokens: Any) -> Any:
        """The text of a row of tokens, or a list of those of several rows."""
        ids = torch.as_tensor(tokens)
        if ids.ndim == 2:
            return [super(SpeaksAsBefore, self).to_string(row) for row in ids]
        return super().to_string(ids)

    def to_str_tokens(self, input: Any, prepend_bos: bool | None = None) -> Any:
        """Each token of a text or a row of tokens as a string; a list of these for a list."""
        if isinstance(input, list):
            return [self.to_str_tokens(one, prepend_bos) for one in input]
        if not isinstance(input, str):
            return super().to_str_tokens(torch.atleast_1d(torch.as_tensor(input)))
        return super().to_str_tokens(self.to_tokens(input, prepend_bos))

    def to_single_str_token(self, int_token: int) -> str:
        """The one token of this number as a string."""
        return super().to_string(int_token)

    def get_token_position(
        self,
        single_token: str | int,
        input: str | Int[Tensor, " pos"] | Int[Tensor, "1 pos"],
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = None,
    ) -> int:
        """Where a token stands in a text or a row of tokens, first or last; ValueError if it does
        not."""
        tokens = self.to_tokens(input, prepend_bos) if isinstance(input, str) else input
        token = (
            self.to_single_token(single_token) if isinstance(single_token, str) else single_token
        )
        found = (tokens.flatten() == token).nonzero().flatten().tolist()
        if not found or mode not in ("first", "last") or tokens.numel() != tokens.shape[-1]:
            raise ValueError(f"wanted the first or last place of {single_token!r} in one row, got "
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
        """The input and what the model says next: see GPT.generate. Without a `seed` the global
        generator of torch gives one; `verbose` has nothing to say, for nothing is printed.

        Tokens are masked as `mask_of` says. ValueError for a freq_penalty.
        """
        if freq_penalty != 0:
            raise ValueError(f"freq_penalty={freq_penalty} is not supported: write a hook on, or a "
                             f"loop over, the logits")  # fmt: skip
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
    """The padding side; ValueError if it is none."""
    if side not in ("left", "right"):
        raise ValueError(f"padding_side={side!r}; choose left or right")
    return side


def drawn_seed() -> int:
    """A seed from the global generator of torch, as torch.manual_seed has set it."""
    return int(torch.randint(2**31, ()))
