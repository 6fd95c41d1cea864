"""The GPT, in the order in which data meets it: config, vocabulary, layers, attention, gpt.

- AnyHead: a head in any of its forms: Head(1, 4), (1, 4) or 'L1H4'.
- AnyPath: a path as a Path or as text.
- Attention: the heads of one layer.
- BOS: the text of the token that every prompt begins with.
- check_causal: ValueError for a model in which tokens see later tokens.
- check_predicts: ValueError for a model whose logits are not of the next token.
- check_words: ValueError for a vocabulary with more tokens than the model.
- checked_text: a text unchanged; ValueError if UTF-8 cannot encode it.
- checked_tokens: tokens as a batch; ValueError if the model cannot read them.
- d_mlp: the number of neurons of each MLP; ValueError for an attention-only model.
- depth: the order of a component on the way from the embedding (0) to the logits.
- every_head: all heads of a model, layer after layer.
- GPT: the model.
- GPTConfig: everything that shapes a GPT.
- Head: a head by its layer and number.
- head: the head that a label or a pair names.
- heads: the heads that several labels or pairs name, in increasing layers.
- HeadsOrResid: the type of an input of W_Q, W_K or W_V, shared by the heads or one for each.
- Ids: the type of tokens as input: a tensor, an array or lists.
- is_bias: whether a weight of this name is a bias.
- is_text: whether an input is a text, or a list of texts.
- KeyValueCache: the keys and values of the tokens that a model has read so far.
- LayerPast: the keys and values of one layer in a KeyValueCache.
- likeliest: logits without the tokens that top_k or top_p leave out.
- masked_scores: the attention scores q k / scale, -inf where a token is not seen.
- mean_loss: the mean next-token loss, without pads.
- misfit: a sentence that lists missing and unknown names in a checkpoint, and the likely reason.
- mlp: the layer of an MLP named like 'MLP0'.
- Norm: layer norm or RMS norm.
- Path: a path through the model, from a writer through heads to a reader.
- path: the path that a text such as 'embed > L0H1 > logits' means.
- process_weights: a model with simplified weights and the same log-probabilities.
- Reader: the hook point where a component reads the residual stream.
- reader: the hook point where the component of this name reads.
- receivers: the names of all components that read from the residual stream.
- Resid: the type of the residual stream, [batch pos d_model].
- ROTARY: the names of the fields that shape rotary positions.
- Rotary: positions that turn queries and keys.
- Rows: the type of the positions of a run: a slice, or one for each token.
- Seen: the type of an attention mask, True where a destination sees a source.
- senders: the names of all components that write to the residual stream.
- Sources: the type of keys and values: [batch src head d_head].
- token_loss: the next-token loss at each position.
- triangle: the causal mask.
- unwrap_names: weights without the prefixes of torch.compile and DistributedDataParallel.
- Vocabulary: a tokenizer: text to tokens and back.
- vocabulary_of: the tokenizer of a model; ValueError if it has none.
- Writer: the hook point where a component writes to the residual stream.
- writer: the hook point where the component of this name writes.
"""

from circuits.model.attention import Attention, Seen, masked_scores, triangle
from circuits.model.components import (
    AnyHead,
    AnyPath,
    Head,
    Path,
    Reader,
    Writer,
    depth,
    every_head,
    head,
    heads,
    mlp,
    path,
    reader,
    receivers,
    senders,
    writer,
)
from circuits.model.config import ROTARY, GPTConfig, check_causal, check_predicts
from circuits.model.folding import process_weights
from circuits.model.generation import likeliest, vocabulary_of
from circuits.model.gpt import GPT
from circuits.model.kv_cache import KeyValueCache, LayerPast, Sources
from circuits.model.layers import HeadsOrResid, Norm, Resid
from circuits.model.loss import mean_loss, token_loss
from circuits.model.rotary import Rotary, Rows
from circuits.model.vocabulary import (
    BOS,
    Ids,
    Vocabulary,
    check_words,
    checked_text,
    checked_tokens,
    is_text,
)
from circuits.model.weights import d_mlp, is_bias, misfit, unwrap_names

__all__ = [
    "BOS", "GPT", "ROTARY", "AnyHead", "AnyPath", "Attention", "GPTConfig", "Head", "HeadsOrResid",
    "Ids", "KeyValueCache", "LayerPast", "Norm", "Path", "Reader", "Resid", "Rotary", "Rows",
    "Seen", "Sources", "Vocabulary", "Writer", "check_causal", "check_predicts", "check_words",
    "checked_text", "checked_tokens", "d_mlp", "depth", "every_head", "head", "heads", "is_bias",
    "is_text", "likeliest", "masked_scores", "mean_loss", "misfit", "mlp", "path",
    "process_weights", "reader", "receivers", "senders", "token_loss", "triangle", "unwrap_names",
    "vocabulary_of", "writer",
]  # fmt: skip
