"""Text in and out of a GPT: the tokens of a text, the text of tokens, and new text after it."""

import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from circuits.model.config import GPTConfig, check_predicts
from circuits.model.kv_cache import KeyValueCache
from circuits.model.vocabulary import Ids, Vocabulary, checked_mask, checked_tokens, is_text

Logits = Float[Tensor, "batch d_vocab"]
Tokens = Int[Tensor, "batch pos"]
Real = Bool[Tensor, "batch pos"]
"Which positions hold tokens, the others being pads."


class Speaks(nn.Module):
    """What a GPT does with text; the tokens it speaks in are those of its tokenizer."""

    cfg: GPTConfig
    tokenizer: Vocabulary | None
    W_E: Any
    W_U: Any
    unembed: Any
    ln_final: Any
    _bos: int | None = None
    _trained_ctx: int | None = None

    @property
    def bos(self) -> int:
        """The token that begins a prompt: that which was set, else the tokenizer's <|endoftext|>,
        else 0. Set it for a model without a tokenizer; ValueError outside of the vocabulary."""
        if self._bos is not None:
            return self._bos
        return 0 if self.tokenizer is None else self.tokenizer.bos

    @bos.setter
    def bos(self, bos: int | None) -> None:
        if bos is not None and not 0 <= bos < self.cfg.d_vocab:
            raise ValueError(f"bos={bos} must be a token, 0 to {self.cfg.d_vocab - 1}")
        self._bos = bos

    @property
    def trained_ctx(self) -> int:
        """How many positions the model was trained on: what was set, else n_ctx. Set it where
        training saw shorter rows, or sinusoidal positions were made longer; ValueError unless it is
        1 to n_ctx."""
        return self._trained_ctx or self.cfg.n_ctx

    @trained_ctx.setter
    def trained_ctx(self, positions: int) -> None:
        if not 1 <= positions <= self.cfg.n_ctx:
            raise ValueError(f"trained_ctx={positions} must be 1 to n_ctx={self.cfg.n_ctx}")
        self._trained_ctx = positions

    @property
    def _vocabulary(self) -> Vocabulary:
        if self.tokenizer is None:
            raise ValueError("this model has no tokenizer: give it tokens, or GPT(cfg, tokenizer)")
        return self.tokenizer

    def to_tokens(self, text: str | Sequence[str], *, prepend_bos: bool = True) -> Tensor:
        """Tokens [batch pos] of text, BOS first: see Vocabulary.to_tokens."""
        return self._vocabulary.to_tokens(text, prepend_bos=prepend_bos).to(self.W_E.device)

    def to_padded_tokens(
        self,
        text: str | Sequence[str],
        *,
        padding_side: Literal["left", "right"] = "right",
        prepend_bos: bool = True,
    ) -> tuple[Tokens, Real]:
        """Tokens of texts of any lengths, and their `attention_mask`: see Vocabulary."""
        tokens, mask = self._vocabulary.to_padded_tokens(
            text, padding_side=padding_side, prepend_bos=prepend_bos
        )
        return tokens.to(self.W_E.device), mask.to(self.W_E.device)

    def to_string(self, tokens: Tensor | Sequence[int] | int) -> str:
        """The text of a row of tokens."""
        return self._vocabulary.to_string(tokens)

    def to_str_tokens(self, text: str | Tensor, *, prepend_bos: bool = True) -> list[str]:
        """Each token of a text or a row of tokens as a string."""
        return self._vocabulary.to_str_tokens(text, prepend_bos=prepend_bos)

    def to_single_token(self, text: str) -> int:
        """The one token that is this text; ValueError if it is none or several."""
        return self._vocabulary.to_single_token(text)

    def tokens_to_residual_directions(
        self, tokens: str | int | Int[Tensor, "*batch_pos"]
    ) -> Float[Tensor, "*lead d_model"]:
        """What the final normed stream is multiplied by for the logit of a token: its column of
        W_U, or one for each of several tokens."""
        ids: Any = self.to_single_token(tokens) if isinstance(tokens, str) else tokens
        ids = ids.squeeze() if isinstance(ids, Tensor) and ids.numel() == 1 else ids
        return self.W_U.T[ids]

    def generate(
        self,
        input: Ids | str,
        max_new_tokens: int = 10,
        *,
        attention_mask: Shaped[Tensor, "*batch pos"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        do_sample: bool = True,
        stop_at_eos: bool = True,
        eos_token_id: int | Sequence[int] | None = None,
        prepend_bos: bool = True,
        use_past_kv_cache: bool = True,
        return_type: Literal["input", "str", "tokens"] = "input",
        seed: int = 0,
    ) -> Any:
        """The input and what the model says next: text for text (a list for several, of any
        lengths), tokens [batch pos+new] for tokens, or as `return_type` says; `attention_mask` as
        in `forward`. What is new stands behind all pads.

        Each token is drawn from softmax(logits / temperature), of the `top_k` likeliest and of the
        fewest of them that hold `top_p` of the probability; the likeliest is taken at temperature 0
        or without `do_sample`. A row ends with one of `eos_token_id` (by default the tokenizer's
        <|endoftext|>; none without a tokenizer), which fills it up while others go on and which
        text leaves out; <|endoftext|> in a text that is given is that token too. The same seed
        gives the same tokens.

        With `use_past_kv_cache` attached hooks see the new tokens of each step alone, else all of
        them; the final norm and the unembedding are run at the last position. Gradients are not
        kept. ValueError for settings out of range, and for more than n_ctx tokens.
        """
        check_predicts(self.cfg, "generate")
        _check(max_new_tokens, temperature, top_k, top_p, return_type)
        from_text = is_text(input)
        wants_text = return_type == "str" or (return_type == "input" and from_text)
        tokens, real = self._read(input, attention_mask, prepend_bos)
        if tokens.shape[1] + max_new_tokens > self.cfg.n_ctx:
            raise ValueError(f"{tokens.shape[1]} tokens and {max_new_tokens} new ones are more "
                             f"than the context of n_ctx={self.cfg.n_ctx}")  # fmt: skip
        vocabulary = self._vocabulary if wants_text else None
        generator = torch.Generator().manual_seed(seed)

        def choose(logits: Logits) -> Int[Tensor, " batch"]:
            most = logits.double().amax(-1, keepdim=True)
            if not most.isfinite().all():
                raise ValueError("the model gives logits that are not finite: there is no next "
                                 "token to choose")  # fmt: skip
            if temperature == 0 or not do_sample:
                return logits.argmax(-1)
            below = (logits.double() - most) / temperature  # 0 at most, however small that is
            p = likeliest(below, top_k, top_p).softmax(-1).cpu()
            return torch.multinomial(p, 1, generator=generator)[:, 0].to(logits.device)

        ends = self._ends(eos_token_id) if stop_at_eos else []
        whole = self._continued(tokens, real, max_new_tokens, choose, ends, use_past_kv_cache)
        if vocabulary is None:
            return whole
        first, n = 1 if from_text and prepend_bos else 0, tokens.shape[1]
        real = torch.ones_like(tokens, dtype=torch.bool) if real is None else real
        texts = [
            vocabulary.to_string([*row[:n][own].tolist()[first:], *_unended(row[n:], ends)])
            for row, own in zip(whole, real, strict=True)
        ]
        return texts[0] if isinstance(input, str) or (not from_text and len(texts) == 1) else texts

    def _read(
        self, input: Any, attention_mask: Tensor | None, prepend_bos: bool
    ) -> tuple[Tokens, Real | None]:
        """Tokens, and which are no pads; None if none is. Texts of several lengths get pads."""
        tokens, mask = input, attention_mask
        if is_text(input):
            if attention_mask is not None:
                raise ValueError("attention_mask is for tokens: texts are padded here, as need be")
            tokens, mask = self.to_padded_tokens(
                input, padding_side="left", prepend_bos=prepend_bos
            )
            if self.cfg.smeared_keys and not mask.all():
                raise ValueError("with smeared_keys texts are padded on no side: generate from "
                                 "texts of one length, or one at a time")  # fmt: skip
        tokens = checked_tokens(tokens, self.cfg).to(self.W_E.device)
        return tokens, checked_mask(mask, tokens)

    @torch.no_grad()
    def _continued(
        self,
        tokens: Tokens,
        real: Real | None,
        n: int,
        choose: Callable[..., Tensor],
        ends: list[int],
        cached: bool,
    ) -> Int[Tensor, "batch pos_"]:
        """Up to `n` tokens more in each row, fewer if all rows have ended."""
        past = KeyValueCache.init_cache(self.cfg, len(tokens)) if cached else None
        ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
        for _ in range(n):
            at = 0 if past is None else past.n
            resid = self(
                tokens[:, at:],
                attention_mask=None if real is None else real[:, at:],
                stop_at_layer=self.cfg.n_layers,
                past_kv_cache=past,
            )
            new = choose(self.unembed(self.ln_final(_last(resid, real)))[:, 0])
            new = torch.where(ended, tokens[:, -1], new)  # its end again, once a row has ended
            tokens = torch.cat([tokens, new[:, None]], 1)
            real = None if real is None else torch.cat([real, real.new_ones(len(real), 1)], 1)
            ended = ended | torch.isin(new, torch.tensor(ends, device=new.device))
            if ended.all():
                break
        return tokens

    def _ends(self, given: int | Sequence[int] | None) -> list[int]:
        if given is None:
            return [] if self.tokenizer is None else [self.tokenizer.bos]
        ends = [given] if isinstance(given, int) else list(given)
        if not ends or min(ends) < 0 or max(ends) >= self.cfg.d_vocab:
            raise ValueError(f"eos_token_id={given} must be tokens of the vocabulary, 0 to "
                             f"{self.cfg.d_vocab - 1}; stop_at_eos=False never stops")  # fmt: skip
        return ends


def likeliest(logits: Logits, top_k: int | None = None, top_p: float | None = None) -> Logits:
    """The logits, but -inf outside of the `top_k` largest and, of the distribution that these make,
    outside of the fewest tokens whose probability reaches `top_p` (Holtzman et al. 2020, "The
    Curious Case of Neural Text Degeneration", section 3.1, https://arxiv.org/abs/1904.09751)."""
    ordered, tokens = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    if top_p is not None:
        p = ordered.softmax(-1)
        ordered = ordered.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, tokens, ordered)


def _last(
    resid: Float[Tensor, "batch pos d_model"], real: Bool[Tensor, "batch src"] | None
) -> Float[Tensor, "batch 1 d_model"]:
    """The stream at each row's last token, which need not be its last position."""
    if real is None:
        return resid[:, -1:]
    pads = real[:, -resid.shape[1] :].flip(1).long().argmax(1)
    return resid[torch.arange(len(resid), device=resid.device), -1 - pads][:, None]


def _unended(said: Int[Tensor, " pos"], ends: list[int]) -> list[int]:
    """What was said up to the first end."""
    return list(takewhile(lambda token: token not in ends, said.tolist()))


def _check(
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    return_type: str,
) -> None:
    """ValueError for settings that mean nothing."""
    for fits, words in (
        (max_new_tokens >= 0, f"max_new_tokens must be 0 or more, got {max_new_tokens}"),
        (0 <= temperature < math.inf, f"temperature must be 0 or more, got {temperature}"),
        (top_k is None or top_k >= 1, f"top_k must be 1 or more, got {top_k}"),
        (top_p is None or 0 < top_p <= 1, f"top_p must be above 0 and at most 1, got {top_p}"),
        (return_type in ("input", "str", "tokens"),
         f"return_type={return_type!r}; choose input, str or tokens"),
    ):  # fmt: skip
        if not fits:
            raise ValueError(words)
