"""The parts that hand-built circuits share: sizes, checks and kinds of heads."""

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
"The largest attention to a source that the head does not seek; the sought source gets almost 1."


@dataclass(frozen=True)
class Circuit:
    """A hand-built GPT with one head per layer, as `model`, and the formulas of its answers.

    V is `d_vocab` and P is `n_ctx`. The source that a head seeks has the score `sharpness`. The
    predicted token has the logit `gain`. ValueError for sizes that are too small for the circuit,
    for a gain that is not above 0, and for a sharpness that blurs attention.
    """

    d_vocab: int = 20
    n_ctx: int = 64
    _: KW_ONLY
    sharpness: float = 100.0
    gain: float = 12.0

    least = (2, 2)
    "The smallest d_vocab and n_ctx with which the circuit works."

    @property
    def margin(self) -> tuple[float, str]:
        """The sought source's score minus the next largest score, and its formula."""
        return self.sharpness, "sharpness"

    def __post_init__(self):
        for name, least in zip(("d_vocab", "n_ctx"), self.least, strict=True):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name}={value!r}: this circuit needs a whole number >= {least}")
        if not 0 < self.gain < math.inf:
            raise ValueError(f"gain={self.gain!r}: expected a finite number above 0")
        self.check_sharpness()

    def check_sharpness(self) -> None:
        """ValueError for a sharpness that blurs attention."""
        (margin, formula), least = self.margin, -math.log(LEAK)
        if not least <= margin < math.inf:
            raise ValueError(
                f"{formula} is {margin:.4g}: expected a finite number >= {least:.4g}; below it "
                f"attention is not all or nothing, as the closed forms need it"
            )

    @cached_property
    def model(self) -> GPT:
        """The GPT with this circuit in its weights: float64, eval, without gradients."""
        raise NotImplementedError

    def loss_at(self, logit: float) -> float:
        """ln(1 + (V - 1) exp(-logit)): the loss, in nats, of a token with this logit if all other
        tokens have logit 0."""
        return math.log1p((self.d_vocab - 1) * math.exp(-logit))

    def blank(self, **fields: Any) -> GPT:
        """A GPT with every weight 0, to write a circuit into.

        The `fields` of its config change the default: one head per layer, attention-only, no norm,
        no biases.
        """
        sizes = {"d_vocab": self.d_vocab, "n_ctx": self.n_ctx, "n_heads": 1}
        plain = {"normalization_type": None, "bias": False}
        model = GPT(GPTConfig(**{**sizes, **plain, **fields}))
        model.double().eval().requires_grad_(False)
        for parameter in model.parameters():
            parameter.zero_()
        return model

    def one_hot(self, *, out: int, place: int | None = None, **fields: Any) -> GPT:
        """A GPT without heads' weights: token t is dim t of the stream, position i is dim `place` +
        i, and the logit of t is `gain` times dim `out` + t."""
        model = self.blank(**fields)
        token, pos = torch.arange(self.d_vocab), torch.arange(self.n_ctx)
        model.embed.W_E[token, token] = 1
        model.unembed.W_U[out + token, token] = self.gain
        if place is not None:
            model.pos_embed.W_pos[pos, place + pos] = 1
        return model

    def copying_stream(self, *, d_head: int) -> GPT:
        """A two-layer GPT without heads' weights on the stream [content V | previous V | out V |
        place P], one dim per token or position: `content` holds the token, `place` its shortformer
        position, and the logits are `gain` times `out`."""
        V = self.d_vocab
        sizes = {"n_layers": 2, "d_model": 3 * V + self.n_ctx, "d_head": d_head}
        return self.one_hot(
            out=2 * V, place=3 * V, positional_embedding_type="shortformer", **sizes
        )


@dataclass(frozen=True)
class RestingCircuit(Circuit):
    """A circuit with a head that rests on BOS: it attends to token 0 where no source matches.

    BOS then scores `rest` * `sharpness`, and its value is zero. ValueError unless a match scores
    clearly above BOS, and BOS clearly above all other sources.
    """

    _: KW_ONLY
    rest: float = 0.5

    least = (3, 4)

    @property
    def margin(self) -> tuple[float, str]:
        rest = self.rest
        if not 0 < rest < 1:
            raise ValueError(
                f"rest={rest!r}: expected a share of the match's score, above 0 and below 1"
            )
        return self.sharpness * min(rest, 1 - rest), "sharpness * min(rest, 1 - rest)"


@dataclass(frozen=True)
class TwoLayerInduction(RestingCircuit):
    """A B ... A -> B by L0H0 and L1H0: the answers that hold for K- and for Q-composition.

    Losses are in nats. Scores are defined in `analyses`.
    """

    prefix_matching = ov_positivity = 1.0
    rest_on_bos = 1.0
    "L1H0's attention to BOS from a token that did not occur before."
    direct_path = 0.0
    "Every entry of W_E W_U."
    virtual_head = 0.0
    "Every entry of W_E W_OV(L0H0) W_OV(L1H0) W_U."

    @property
    def loss_before_repeat(self) -> float:
        """ln V: all logits are equal."""
        return math.log(self.d_vocab)

    @property
    def loss_after_repeat(self) -> float:
        """ln(1 + (V - 1) exp(-gain)): the right token has logit `gain`, the others 0."""
        return self.loss_at(self.gain)

    @property
    def loss_by_order(self) -> tuple[float, float, float]:
        """The loss after the repeat, of all paths through at most 0, 1 and 2 heads, with frozen
        patterns. Paths through one head give the full effect, and the virtual head adds nothing."""
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
    """Head 0 scores `score` where dims `query` + `dims` of the destination's stream equal dims
    `key` + `dims` of the source's stream, both one-hot. It uses its dims `at` + `dims`."""
    attn.W_Q[0, query + dims, at + dims] = score * attn.scale  # the model divides scores by scale
    attn.W_K[0, key + dims, at + dims] = 1


def rest_on_bos(attn: Attention, d_vocab: int, *, score: float, at: int) -> None:
    """Head 0 gives BOS the score `score` from every token, in its dim `at`, and the value zero.

    Token t must be dim t of the stream. Call this after `move` has written the values.
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

    Position i must be dim `place` + i of the stream. Position 0 attends to itself.
    """
    pos = torch.arange(n_ctx)
    attn.W_Q[0, place + pos, (pos - 1).clamp(min=0)] = sharpness * attn.scale
    attn.W_K[0, place + pos, pos] = 1
