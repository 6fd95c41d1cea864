"""The parts of a run: the residual stream, paths and scores as sums; and circuits of the weights.

- check_positions: the position of each example, from 0. It refuses positions that do not exist.
- check_run: the cache itself. It refuses a cache of another model or of other tokens.
- end_input: the input of a reader for a part of the stream, with the norm's scale frozen.
- entry_terms: the terms of the stream before block 0, by name.
- full_OV: the OV circuits from token to logit, W_E W_OV W_U, of all heads.
- full_QK: the QK circuits from token to token, W_E W_QK W_E^T, of all heads.
- head_results: the output of each head of a layer.
- K_composed_QK: QK circuits whose keys come through a head of an earlier layer.
- logits_at: the logits of the final stream at one position.
- norm_bias: the bias of a norm, which is added to its output.
- Parts: terms by name, the whole that they sum to, and the remainder.
- start_term: the term that a start of paths adds to the stream.
- starts: the starts of all paths to an end.
- stream: the residual stream before a block.
- through_heads: the output of heads for a part of the stream, with their patterns frozen.
- through_norm: parts of the stream behind the norm of a reader, with the norm's scale frozen.
- unembedding: W_U with the gain and the centring of the final norm folded in.
"""

from circuits.decomposition.algebra import K_composed_QK, full_OV, full_QK, unembedding
from circuits.decomposition.frozen import end_input, start_term, starts, through_heads
from circuits.decomposition.parts import Parts
from circuits.decomposition.stream import (
    check_positions,
    check_run,
    entry_terms,
    head_results,
    logits_at,
    norm_bias,
    stream,
    through_norm,
)

__all__ = [
    "K_composed_QK", "Parts", "check_positions", "check_run", "end_input", "entry_terms", "full_OV",
    "full_QK", "head_results", "logits_at", "norm_bias", "start_term", "starts", "stream",
    "through_heads", "through_norm", "unembedding",
]  # fmt: skip
