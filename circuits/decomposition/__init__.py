"""Sums that add up: residual stream, paths, scores, and the circuits of the weights.

- entering: the terms of the stream before block 0, by name.
- full_OV: the OV circuits from token to logit, W_E W_OV W_U, of all heads.
- full_QK: the QK circuits from token to token, W_E W_QK W_E^T, of all heads.
- head_results: the output of each head of a layer.
- K_composed_QK: QK circuits whose keys come through a head of an earlier layer.
- logits_at: the logits of the final stream at one position.
- norm_bias: the constant that a norm adds to all that it reads.
- Parts: terms by name that sum to a whole, and the remainder that they miss.
- read_by_end: the input of a reader for a part of the stream, with the norm's scale frozen.
- same_run: a cache, once it is checked that it is of this model and of these tokens.
- source: the term that a start of paths adds to the stream.
- starts: the starts of all paths that reach an end.
- stream: the residual stream before a block.
- through_heads: the output of heads for a part of the stream, with their patterns frozen.
- through_norm: parts of the stream as a reader sees them, with the scale of its norm frozen.
- unembedding: W_U with the gain and the centring of the final norm folded in.
"""

from circuits.decomposition.algebra import K_composed_QK, full_OV, full_QK, unembedding
from circuits.decomposition.frozen import read_by_end, source, starts, through_heads
from circuits.decomposition.parts import Parts
from circuits.decomposition.stream import (
    entering,
    head_results,
    logits_at,
    norm_bias,
    same_run,
    stream,
    through_norm,
)

__all__ = [
    "K_composed_QK", "Parts", "entering", "full_OV", "full_QK", "head_results", "logits_at",
    "norm_bias", "read_by_end", "same_run", "source", "starts", "stream", "through_heads",
    "through_norm", "unembedding",
]  # fmt: skip
