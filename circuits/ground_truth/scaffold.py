"""The parts that all hand-built circuits share: their sizes, their checks, their kinds of heads."""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.model import GPT, Attention, GPTConfig

Edges = tuple[tuple[str, str], ...]
'Edges of a circuit, each (sender, receiver) by name: ("L0H0", "L1H0.K").'
LEAK = 1e-8
"The largest attention to a source that the head does not seek; the sought source has almost 1."


@dataclass(frozen=True)
class Circuit:
    """A hand-built GPT with one head per layer, as `model`, and the formulas of its answers.

    V is `d_vocab` and P is `n_ctx`. A head that finds its source scores it `sharpness`; the logit
    of the token that the head finds is `gain`. ValueError for sizes that are too small to show the
    circuit, for a gain that is not above 0, and for a sharpness that blurs attention.
    """

    d_vocab: int = 20
    n_ctx: int = 64
    _: KW_ONLY
    sharpness: float = 100.0
    gain: float = 12.0

    least = (2, 2)
    "The smallest d_vocab and n_ctx with which the circuit can show itself."

    @property
    def margin(self) -> tuple[float, str]:
        """The distance from the score that a head seeks down to the next, and its formula."""
        return self.sharpness, "sharpness"

    def __post_init__(self):
        for name, least in zip(("d_vocab", "n_ctx"), self.least, strict=True):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r}: this circuit wants a whole number >= {least}")
        if not 0 < self.gain < math.inf:
            raise ValueError(f"gain={self.gain!r}: wanted is a finite number above 0")
        (margin, formula), least = self.margin, -math.log(LEAK)
        if not least <= margin < math.inf:
            raise ValueError(
                f"{formula} is {margin:.4g}: wanted is a finite number from {least:.4g} on, from "
                f"where attention is all or nothing, as in the closed forms"
            )

    @cached_property
    def model(self) -> GPT:
        """The GPT with this circuit in its weights: float64, eval, without gradients."""
        raise NotImplementedError

    def loss_at(self, logit: float) -> float:
        """ln(1 + (V - 1) exp(-logit)): the loss, in nats, of a token that has this logit where all
        other tokens have 0."""
        return math.log1p((self.d_vocab - 1) * math.exp(-logit))

    def blank(self, **fields: Any) -> GPT:
        """A GPT of this config whose every weight is 0, to write a circuit into.

        One head per layer, attention-only, no norm and no biases unless the fields say otherwise.
        """
        sizes = {"d_vocab": self.d_vocab, "n_ctx": self.n_ctx, "n_heads": 1}
        plain = {"normalization_type": None, "bias": False}
        model = GPT(GPTConfig(**{**sizes, **plain, **fields}))
        model.double().eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.zero_()
        return model

    def one_hot(self, *, out: int, place: int | None = None, **fields: Any) -> GPT:
        """A blank GPT in which token t is dim t of the stream and position i is dim `place` + i,
        and the logit of t is `gain` times dim `out` + t. The heads are still to be written."""
        model = self.blank(**fields)
        token, pos = torch.arange(self.d_vocab), torch.arange(self.n_ctx)
        model.embed.W_E[token, token] = 1
        model.unembed.W_U[out + token, token] = self.gain
        if place is not None:
            model.pos_embed.W_pos[pos, place + pos] = 1
        return model

    def copying_stream(self, *, d_head: int) -> GPT:
        """Two layers of one head on the stream [content V | previous V | out V | place P], one dim
        per token or position: `content` holds the token, `place` its shortformer position, and the
        logits are `gain` times `out`. The heads are still to be written."""
        V = self.d_vocab
        sizes = {"n_layers": 2, "d_model": 3 * V + self.n_ctx, "d_head": d_head}
        return self.one_hot(
            out=2 * V, place=3 * V, positional_embedding_type="shortformer", **sizes
        )


@dataclass(frozen=True)
class RestingCircuit(Circuit):
    """A circuit with a head that rests on BOS, which is token 0, where nothing matches.

    Resting scores `rest` * `sharpness`, and the value of BOS is zero. ValueError unless a match
    scores clearly above resting, and resting clearly above everything else.
    """

    _: KW_ONLY
    rest: float = 0.5

    least = (3, 4)

    @property
    def margin(self) -> tuple[float, str]:
        rest = self.rest
        if not 0 < rest < 1:
            raise ValueError(
                f"rest={rest!r}: wanted is a share of the match's score, above 0, below 1"
            )
        return self.sharpness * min(rest, 1 - rest), "sharpness * min(rest, 1 - rest)"


@dataclass(frozen=True)
class TwoLayerInduction(RestingCircuit):
    """A B ... A -> B by L1H0, with the help of L0H0: the answers that do not depend on how.

    Losses are in nats, scores as the analyses define them.
    """

    prefix_matching = ov_positivity = 1.0
    rest_on_bos = 1.0
    "Attention of L1H0 to BOS of a token that was not seen before."
    direct_path = 0.0
    "Every entry of W_E W_U."
    virtual_head = 0.0
    "Every entry of W_E W_OV(L0H0) W_OV(L1H0) W_U."

    @property
    def loss_before_repeat(self) -> float:
        """ln V: no token can be told from another."""
        return math.log(self.d_vocab)

    @property
    def loss_after_repeat(self) -> float:
        """ln(1 + (V - 1) exp(-gain)): the right token has logit `gain`, the others 0."""
        return self.loss_at(self.gain)

    @property
    def loss_by_order(self) -> tuple[float, float, float]:
        """The loss after the repeat, of all paths through at most 0, 1, 2 heads, patterns frozen.
        One head does everything that patterns cannot do, and no virtual head takes part."""
        return self.loss_before_repeat, self.loss_after_repeat, self.loss_after_repeat

    @property
    def ov_trace(self) -> float:
        """gain (V - 1): each token but BOS raises its own logit by `gain`."""
        return self.gain * (self.d_vocab - 1)


def match(
    attn: Attention,
    dims: Int[Tensor, " dim"],
    *,
    query: int,
    key: int,
    score: float,
    at: int = 0,
) -> None:
    """Head 0 scores `score` where the stream at dims `query` + `dims` of the destination equals the
    stream at dims `key` + `dims` of the source; its own dims are `at` + `dims`."""
    attn.W_Q[0, query + dims, at + dims] = score * attn.scale  # which scores are divided by
    attn.W_K[0, key + dims, at + dims] = 1


def rest_on_bos(attn: Attention, d_vocab: int, *, score: float, at: int) -> None:
    """Head 0 scores BOS `score` at every token, in its own dim `at`, and moves nothing from BOS.

    Tokens are one-hot from dim 0 of the stream; call this after the values are written.
    """
    attn.W_Q[0, :d_vocab, at] = score * attn.scale
    attn.W_K[0, 0, at] = 1
    attn.W_V[0, 0] = 0


def move(attn: Attention, dims: Int[Tensor, " dim"], *, read: int, write: int) -> None:
    """Head 0 copies dims `read` + `dims` of the source to dims `write` + `dims`."""
    attn.W_V[0, read + dims, dims] = 1
    attn.W_O[0, dims, write + dims] = 1


def look_back(attn: Attention, place: int, n_ctx: int, sharpness: float) -> None:
    """Make head 0 a previous-token head: the query of position i is the key of i - 1.

    Positions are one-hot from dim `place` of the stream. The first position has only itself.
    """
    pos = torch.arange(n_ctx)
    attn.W_Q[0, place + pos, (pos - 1).clamp(min=0)] = sharpness * attn.scale
    attn.W_K[0, place + pos, pos] = 1
