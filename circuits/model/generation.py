"""Text and a GPT: the tokens of a text, the text of tokens, and generation of new text.

The functions whose first argument is `model` are methods of GPT: model.generate(...).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from circuits.model.config import check_predicts
from circuits.model.kv_cache import KeyValueCache
from circuits.model.vocabulary import Ids, Vocabulary, checked_mask, checked_tokens, is_text

Logits = Float[Tensor, "batch d_vocab"]
Tokens = Int[Tensor, "batch pos"]
Real = Bool[Tensor, "batch pos"]
"True where a position holds a token, False at pads."


def vocabulary_of(model: Any) -> Vocabulary:
    """The tokenizer of a model; ValueError if it has none."""
    if model.tokenizer is None:
        raise ValueError("this model has no tokenizer: give it tokens, or GPT(cfg, tokenizer)")
    return model.tokenizer


def to_tokens(model: Any, text: str | Sequence[str], *, prepend_bos: bool = True) -> Tensor:
    """The tokens [batch pos] of text, BOS first: see Vocabulary.to_tokens."""
    return vocabulary_of(model).to_tokens(text, prepend_bos=prepend_bos).to(model.W_E.device)


def to_padded_tokens(
    model: Any,
    text: str | Sequence[str],
    *,
    padding_side: Literal["left", "right"] = "right",
    prepend_bos: bool = True,
) -> tuple[Tokens, Real]:
    """The tokens of texts of any lengths, and their `attention_mask`: see Vocabulary."""
    tokens, mask = vocabulary_of(model).to_padded_tokens(
        text, padding_side=padding_side, prepend_bos=prepend_bos
    )
    return tokens.to(model.W_E.device), mask.to(model.W_E.device)


def to_string(model: Any, tokens: Tensor | Sequence[int] | int) -> str:
    """The text of a row of tokens."""
    return vocabulary_of(model).to_string(tokens)


def to_str_tokens(model: Any, text: str | Tensor, *, prepend_bos: bool = True) -> list[str]:
    """Each token of a text or a row of tokens as a string."""
    return vocabulary_of(model).to_str_tokens(text, prepend_bos=prepend_bos)


def to_single_token(model: Any, text: str) -> int:
    """The one token of this text; ValueError unless the text is one token."""
    return vocabulary_of(model).to_single_token(text)


def tokens_to_residual_directions(
    model: Any, tokens: str | int | Int[Tensor, "*batch_pos"]
) -> Float[Tensor, "*lead d_model"]:
    """The column of W_U of a token, or of each of several tokens. Its product with the stream after
    the final norm is the token's logit (without b_U)."""
    ids: Any = model.to_single_token(tokens) if isinstance(tokens, str) else tokens
    ids = ids.squeeze() if isinstance(ids, Tensor) and ids.numel() == 1 else ids
    return model.W_U.T[ids]


def generate(
    model: Any,
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
    """The input and its continuation by the model: text for text (a list for several texts, of any
    lengths), tokens [batch pos+new] for tokens, or as `return_type` says. `attention_mask` is as in
    `forward`. New tokens come after all pads.

    A token is drawn from softmax(logits / temperature), among the `top_k` likeliest tokens, and
    among the fewest of these whose probability reaches `top_p`. At temperature 0, or without
    `do_sample`, it is the likeliest token. A row ends with a token of `eos_token_id` (by default
    the tokenizer's EOS; without a tokenizer no token ends it). The row is then filled
    with this token while other rows continue; returned text leaves it out. The same seed gives the
    same tokens.

    With `use_past_kv_cache` hooks see only the new tokens of each step, else all tokens. The final
    norm and the unembedding run only at the last token. No gradients are kept. ValueError for
    settings out of range, and for more than n_ctx tokens.
    """
    check_predicts(model.cfg, "generate")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, got {max_new_tokens}")
    if return_type not in ("input", "str", "tokens"):
        raise ValueError(f"return_type={return_type!r}; choose input, str or tokens")
    choice = _Choice(temperature, top_k, top_p, seed)
    choice = choice if do_sample else replace(choice, temperature=0.0)
    from_text = is_text(input)
    tokens, real = _read(model, input, attention_mask, prepend_bos)
    if tokens.shape[1] + max_new_tokens > model.cfg.n_ctx:
        raise ValueError(f"{tokens.shape[1]} tokens and {max_new_tokens} new ones are more "
                         f"than the context of n_ctx={model.cfg.n_ctx}")  # fmt: skip
    wants_text = return_type == "str" or (return_type == "input" and from_text)
    vocabulary = vocabulary_of(model) if wants_text else None
    ends = _ends(model, eos_token_id) if stop_at_eos else []
    past = KeyValueCache.init_cache(model.cfg, len(tokens)) if use_past_kv_cache else None
    whole = _continuation(model, tokens, real, max_new_tokens, choice, ends, past)
    if vocabulary is None:
        return whole
    first, n = 1 if from_text and prepend_bos else 0, tokens.shape[1]
    texts = [
        vocabulary.to_string([*row[:n][own].tolist()[first:], *_before_end(row[n:], ends)])
        for row, own in zip(whole, real, strict=True)
    ]
    return texts[0] if isinstance(input, str) or (not from_text and len(texts) == 1) else texts


def _read(
    model: Any, input: Any, attention_mask: Tensor | None, prepend_bos: bool
) -> tuple[Tokens, Real]:
    """Tokens and a mask that is False at pads. Texts of different lengths are padded."""
    tokens, mask = input, attention_mask
    if is_text(input):
        if attention_mask is not None:
            raise ValueError("attention_mask is for tokens: texts are padded and masked anyway")
        tokens, mask = to_padded_tokens(model, input, padding_side="left", prepend_bos=prepend_bos)
        if model.cfg.smeared_keys and not mask.all():
            raise ValueError("with smeared_keys texts cannot be padded: generate from texts "
                             "of one length, or one text at a time")  # fmt: skip
    tokens = checked_tokens(tokens, model.cfg).to(model.W_E.device)
    real = checked_mask(mask, tokens)
    return tokens, torch.ones_like(tokens, dtype=torch.bool) if real is None else real


@torch.no_grad()
def _continuation(
    model: Any,
    tokens: Tokens,
    real: Real,
    n: int,
    choice: "_Choice",
    ends: list[int],
    past: KeyValueCache | None,
) -> Int[Tensor, "batch pos_"]:
    """The tokens and `n` new tokens in each row, or fewer if all rows have ended."""
    generator = torch.Generator().manual_seed(choice.seed)
    ended = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    for _ in range(n):
        at = 0 if past is None else past.n
        resid = model(
            tokens[:, at:],
            attention_mask=real[:, at:],
            stop_at_layer=model.cfg.n_layers,
            past_kv_cache=past,
        )
        new = choice.next_token(_last_logits(model, resid, real), generator)
        new = torch.where(ended, tokens[:, -1], new)  # an ended row repeats its last token
        tokens = torch.cat([tokens, new[:, None]], 1)
        real = torch.cat([real, real.new_ones(len(real), 1)], 1)
        ended = ended | torch.isin(new, torch.tensor(ends, device=new.device))
        if ended.all():
            break
    return tokens


def _last_logits(
    model: Any, resid: Float[Tensor, "batch pos d_model"], real: Bool[Tensor, "batch src"]
) -> Logits:
    """The logits at each row's last token, which need not be its last position."""
    pads = real[:, -resid.shape[1] :].flip(1).long().argmax(1)
    last = resid[torch.arange(len(resid), device=resid.device), -1 - pads][:, None]
    return model.unembed(model.ln_final(last))[:, 0]


@dataclass(frozen=True)
class _Choice:
    """The settings by which the next token is chosen; ValueError for settings out of range."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        t, k, p = self.temperature, self.top_k, self.top_p
        if not 0 <= t < math.inf:
            raise ValueError(f"temperature must be 0 or more, got {t}")
        if k is not None and k < 1:
            raise ValueError(f"top_k must be 1 or more, got {k}")
        if p is not None and not 0 < p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {p}")

    def next_token(self, logits: Logits, generator: torch.Generator) -> Int[Tensor, " batch"]:
        """A token for each row; ValueError for logits that are not finite."""
        most = logits.double().amax(-1, keepdim=True)
        if not most.isfinite().all():
            raise ValueError("the model gives logits that are not finite: there is no next "
                             "token to choose")  # fmt: skip
        if self.temperature == 0:
            return logits.argmax(-1)
        below = (logits.double() - most) / self.temperature  # at most 0
        p = likeliest(below, self.top_k, self.top_p).softmax(-1).cpu()
        return torch.multinomial(p, 1, generator=generator)[:, 0].to(logits.device)


def likeliest(logits: Logits, top_k: int | None = None, top_p: float | None = None) -> Logits:
    """The logits, with -inf outside of the `top_k` largest. In the distribution of these, the
    fewest tokens whose probability reaches `top_p` stay, and the others become -inf (Holtzman et
    al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1,
    https://arxiv.org/abs/1904.09751)."""
    ordered, tokens = logits.sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        ordered[:, top_k:] = -torch.inf
    if top_p is not None:
        p = ordered.softmax(-1)
        ordered = ordered.masked_fill(p.cumsum(-1) - p >= top_p, -torch.inf)
    return torch.empty_like(logits).scatter_(-1, tokens, ordered)


def _ends(model: Any, given: int | Sequence[int] | None) -> list[int]:
    """The tokens that end a row."""
    if given is None:
        return [] if model.tokenizer is None else [model.tokenizer.eos]
    ends = [given] if isinstance(given, int) else list(given)
    if not ends or min(ends) < 0 or max(ends) >= model.cfg.d_vocab:
        raise ValueError(f"eos_token_id={given} must be tokens of the vocabulary, 0 to "
                         f"{model.cfg.d_vocab - 1}; stop_at_eos=False never stops")  # fmt: skip
    return ends


def _before_end(said: Int[Tensor, " pos"], ends: list[int]) -> list[int]:
    """The tokens before the first token that ends a row."""
    return list(takewhile(lambda token: token not in ends, said.tolist()))
