"""The skip-trigram bug: one head cannot tell keep ... in mind from keep ... in bay."""

import math
from dataclasses import KW_ONLY, dataclass
from functools import cached_property

from circuits.ground_truth.scaffold import RestingCircuit, rest_on_bos
from circuits.model import GPT

BOS, KEEP, IN, AT, MIND, BAY = range(6)
"The tokens of the skip-trigrams of `SkipTrigramBug`: keep ... in mind, keep ... at bay."


@dataclass(frozen=True)
class SkipTrigramBug(RestingCircuit):
    """keep ... in -> mind and keep ... at -> bay in one head, which then also predicts keep ... in
    -> bay and keep ... at -> mind; one layer, no positions; BOS is token 0; float64.

    The stream is [content V | out V], one dim per token. `in` and `at` attend to `keep` (score
    `sharpness`). Every other token attends to BOS (score `rest` * `sharpness`), whose value is
    zero. The OV circuit maps `keep` to `mind` and `bay` (logit `gain`). The effect of a trigram is
    a product of a QK and an OV entry, so the bugs are as strong as the intended trigrams. Losses
    are in nats.

    (Elhage et al. 2021, "Skip-trigram bugs",
    https://transformer-circuits.pub/2021/framework/index.html)
    """

    _: KW_ONLY
    sharpness: float = 60.0
    gain: float = 5.0

    least = (6, 3)
    edges = (("embed", "L0H0.Q"), ("embed", "L0H0.K"), ("embed", "L0H0.V"), ("L0H0", "logits"))
    "The edges that carry a change of tokens to the logits, as (sender, receiver)."
    meant = ((KEEP, IN, MIND), (KEEP, AT, BAY))
    "The intended trigrams (source, destination, out): source ... destination -> out."
    bugs = ((KEEP, IN, BAY), (KEEP, AT, MIND))
    "The wrong trigrams. One OV circuit serves both destinations, so their logits are `gain` too."
    ov_positivity = 0.0
    "The head moves a token to others and never to itself."

    @cached_property
    def model(self) -> GPT:
        V, out = self.d_vocab, self.d_vocab
        sizes = {"n_layers": 1, "d_model": 2 * V, "d_head": 2}
        model = self.one_hot(out=out, positional_embedding_type="none", **sizes)
        head, keep, star = model.blocks[0].attn, 0, 1
        head.W_Q[0, [IN, AT], keep] = self.sharpness * head.scale  # the model divides by scale
        head.W_K[0, KEEP, keep] = 1
        head.W_V[0, KEEP, keep] = 1
        head.W_O[0, keep, [out + MIND, out + BAY]] = 1
        rest_on_bos(head, V, score=self.rest * self.sharpness, at=star)
        return model

    @property
    def loss(self) -> float:
        """ln(2 + (V - 2) exp(-gain)), of the out token of each trigram in `meant` and `bugs`: MIND
        and BAY have logit `gain`, every other token has 0."""
        return math.log(2 + (self.d_vocab - 2) * math.exp(-self.gain))

    @property
    def loss_elsewhere(self) -> float:
        """ln V, at every destination but `in` and `at` after a `keep`."""
        return math.log(self.d_vocab)
