"""Sums that add up: residual stream, paths, scores, and the circuits of the weights.

- arrived: what an end of paths reads of a stream, with the scale of its norm frozen.
- carried: what a head moves: its pattern times the stream times W_OV.
- entering: what is in the stream before block 0, by name.
- full_OV: the OV circuits from token to logit, W_E W_OV W_U, of all heads.
- full_QK: the QK circuits from token to token, W_E W_QK W_E^T, of all heads.
- head_results: what each head of a layer writes to the stream.
- K_composed_QK: QK circuits whose keys come through a head of an earlier layer.
- logits_at: the logits of the final stream at one position.
- norm_bias: the constant that a norm adds to all that it reads.
- Parts: terms by name that sum to a whole, and the remainder that they miss.
- Path: a way through the model, from the embedding to the logits or to an input of a head.
- same_run: a cache, once it is checked that it is of this model and of these tokens.
- source: what a start of paths brings into the stream.
- starts: the starts of all paths that reach an end.
- stream: the residual stream before a block.
- through_norm: parts of the stream as a reader sees them, with the scale of its norm frozen.
- unembedding: W_U with the gain and the centring of the final norm folded in.
"""

from circuits.decomposition.algebra import K_composed_QK, full_OV, full_QK, unembedding
from circuits.decomposition.frozen import arrived, carried, source, starts
from circuits.decomposition.parts import Parts
from circuits.decomposition.paths import Path
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
    "K_composed_QK", "Parts", "Path", "arrived", "carried", "entering", "full_OV", "full_QK",
    "head_results", "logits_at", "norm_bias", "same_run", "source", "starts", "stream",
    "through_norm", "unembedding",
]  # fmt: skip
