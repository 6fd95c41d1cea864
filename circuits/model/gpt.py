"""GPT: a minimal transformer with hook points. The code follows the order of the computation.

    tokens ─ W_E ─┬───────────────┬──────────────┬─ norm ─ W_U ─ logits
                  │               │              │
                  └ norm ─ heads ─┴ norm ─ MLP ──┘ ...       resid_pre, resid_mid, resid_post

Row vectors, as in TransformerLens: W_QK = W_Q W_K^T and W_OV = W_V W_O. The paper (Elhage et al.
2021, https://transformer-circuits.pub/2021/framework/index.html) writes columns.

Every HookPoint is the identity unless a hook is attached. Scores, patterns, per-head results and
per-head inputs are computed only if a hook is attached to them; else fused kernels skip them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from circuits.hooks import CACHE_NAMES, Hooked, HookPoint
from circuits.matrices import FactoredMatrix
from circuits.model import generation, weights
from circuits.model.attention import Seen, visible
from circuits.model.block import Block, Places
from circuits.model.config import GPTConfig
from circuits.model.kv_cache import KeyValueCache, LayerPast
from circuits.model.layers import Embed, PosEmbed, Resid, Unembed, norm
from circuits.model.loss import check_return, mean_loss, token_loss
from circuits.model.rotary import Rotary, Rows
from circuits.model.vocabulary import (
    Ids,
    Vocabulary,
    check_words,
    checked_mask,
    checked_stream,
    checked_tokens,
    is_text,
)

LayerHead = Float[Tensor, "layer head d_model d_head"]


class Entry(NamedTuple):
    """The input of the blocks."""

    resid: Resid
    pos: Places
    seen: Seen | None
    "The attention mask; None for plain causal attention."
    pasts: Sequence[LayerPast | None]
    "The earlier keys and values of each layer."
    tokens: Int[Tensor, "batch pos"] | None
    "None if the input is a residual stream."
    real: Bool[Tensor, "batch src"] | None
    "True where a source is a token, False at pads; None without pads."
    rows: Rows
    "The position of each token: the number of tokens before it, without pads."


class GPT(Hooked):
    """embed -> blocks -> norm -> unembed, with TransformerLens's parameter and hook names."""

    blocks: Any  # Blocks: nn.ModuleList forgets of which class its modules are
    ln_final: Any  # a Norm or the identity
    unembed: Any  # an Unembed, with or without b_U

    def __init__(self, cfg: GPTConfig, tokenizer: Vocabulary | None = None) -> None:
        super().__init__()
        check_words(tokenizer, cfg)
        self.cfg, self.tokenizer = cfg, tokenizer
        self._bos: int | None = None
        self._trained_ctx: int | None = None
        self.hook_tokens = HookPoint(shared=True)  # [batch pos]
        self.embed = Embed(cfg)
        self.hook_embed = HookPoint()  # [batch pos d_model]
        if cfg.embeds_positions:
            self.pos_embed = PosEmbed(cfg)
            kept_as = CACHE_NAMES["hook_pos_embed"] if cfg.shortformer else None
            self.hook_pos_embed = HookPoint(shared=True, cache_name=kept_as)  # [batch pos d_model]
        self.rotary = Rotary(cfg) if cfg.rotary else None  # one table for the heads of all layers
        self.blocks = nn.ModuleList(Block(cfg, self.rotary) for _ in range(cfg.n_layers))
        self.ln_final = norm(cfg)
        self.unembed = Unembed(cfg)
        self.name_hooks()
        weights.initialise(self, cfg)

    def forward(
        self,
        input: Ids | Resid | str,
        return_type: Literal["logits", "loss", "both"] | None = "logits",
        *,
        loss_per_token: bool = False,
        attention_mask: Shaped[Tensor, "*batch pos"] | None = None,
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        past_kv_cache: KeyValueCache | None = None,
    ) -> Any:
        """Logits [batch pos d_vocab], the next-token loss in nats (the mean, or [batch pos-1] with
        `loss_per_token`), or both as (logits, loss). With None nothing is returned.

        `input` is tokens or text, or the residual stream before block `start_at_layer`.
        `attention_mask` is 0 at pads, on either side. No token sees a pad, pads do not count as
        positions and have no loss, so each row has the same logits as alone (see
        `to_padded_tokens`). With `stop_at_layer` the residual stream before this block is returned.
        With `past_kv_cache` the input continues the tokens in the cache and is added to it: text
        gets no BOS, positions continue, hooks and results are of the new tokens, sources are all.
        """
        check_return(self.cfg, return_type, loss_per_token, stop_at_layer)
        first = self._layer(start_at_layer, 0)
        stop = self._layer(stop_at_layer, self.cfg.n_layers)
        if first > stop:
            raise ValueError(f"cannot start at layer {first} and stop before layer {stop}")
        given = None if start_at_layer is None else checked_stream(input, self.cfg)

        entry = self._entry(input, given, attention_mask, past_kv_cache, stop - first)
        resid = entry.resid
        for block, past in zip(self.blocks[first:stop], entry.pasts[first:stop], strict=True):
            resid = block(resid, entry.pos, past, entry.seen, entry.rows)
        if past_kv_cache is not None:
            past_kv_cache.advance(resid.shape[1], entry.real)
        if stop_at_layer is not None:
            return resid
        return self._exit(resid, entry, return_type, loss_per_token)

    def _entry(
        self,
        input: Any,
        given: Resid | None,
        attention_mask: Shaped[Tensor, "*batch pos"] | None,
        past: KeyValueCache | None,
        layers: int,
    ) -> Entry:
        """The input of the blocks: the stream of the tokens, or the `given` stream; positions, mask
        and past. `layers` is the number of blocks that the run passes through."""
        start = 0 if past is None else past.n
        tokens = self._tokens(input, bos=start == 0) if given is None else None
        read: Tensor = given if tokens is None else tokens  # type: ignore[assignment]
        batch, n = read.shape[:2]
        real = checked_mask(attention_mask, read, piece=past is not None)
        pasts: Sequence[LayerPast | None] = [None] * self.cfg.n_layers
        if past is not None:
            past.check(self.cfg, batch, n, layers=layers)
            real, pasts = past.joined(real, batch, n), past.layers
        seen = visible(self.cfg, n, start + n, real, read.device)
        last = slice(start, start + n)
        rows = last if real is None else (real.cumsum(1) - 1).clamp(min=0)[:, -n:]
        if tokens is None:
            pos = self._positions(batch, n, rows) if self.cfg.shortformer else None
            return Entry(read, pos, seen, pasts, None, real, rows)
        resid = self.hook_embed(self.embed(tokens))
        pos = self._positions(batch, n, rows)
        if pos is not None and not self.cfg.shortformer:
            resid, pos = resid + pos, None
        return Entry(resid, pos, seen, pasts, tokens, real, rows)

    def _exit(self, resid: Resid, entry: Entry, return_type: str | None, per_token: bool) -> Any:
        """The logits, the loss or both, from the stream after the last block."""
        normed = self.ln_final(resid)
        if return_type is None:
            return None
        logits = self.unembed(normed)
        if return_type == "logits":
            return logits
        loss = mean_loss(token_loss(logits, entry.tokens), entry.real, per_token)
        return loss if return_type == "loss" else (logits, loss)

    def _tokens(self, input: Any, bos: bool) -> Int[Tensor, "batch pos"]:
        tokens = self.to_tokens(input, prepend_bos=bos) if is_text(input) else input
        return self.hook_tokens(checked_tokens(tokens, self.cfg).to(self.W_E.device))

    def _positions(self, batch: int, n: int, rows: Rows) -> Places:
        """The embeddings of the last `n` positions."""
        if not self.cfg.embeds_positions:
            return None
        pos = (
            self.pos_embed(n, rows.start) if isinstance(rows, slice) else self.pos_embed(n, 0, rows)
        )
        if not self.hook_pos_embed.has_active_hooks:
            return pos
        return self.hook_pos_embed(pos.expand(batch, -1, -1))

    def _layer(self, layer: int | None, default: int) -> int:
        n = self.cfg.n_layers
        if layer is None:
            return default
        if not -n <= layer <= n:
            raise ValueError(f"layer {layer} does not exist: the model has {n}, counted from 0")
        return layer + n if layer < 0 else layer

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Copy these weights by name. RuntimeError, with the likely reason, for weights that are
        missing, unknown or of another shape."""
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            why = weights.misfit(self.cfg, self.state_dict(), state_dict)
            raise RuntimeError(f"{error}\n{why}".rstrip()) from None

    # Text: functions of circuits/model/generation.py as methods.

    to_tokens = generation.to_tokens
    to_padded_tokens = generation.to_padded_tokens
    to_string = generation.to_string
    to_str_tokens = generation.to_str_tokens
    to_single_token = generation.to_single_token
    tokens_to_residual_directions = generation.tokens_to_residual_directions
    generate = generation.generate

    @property
    def bos(self) -> int:
        """The token at the start of a prompt: the token that was set, else the tokenizer's
        BOS, else 0. Set it for a model without a tokenizer. ValueError for a token outside of the
        vocabulary."""
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
        """The number of positions on which the model was trained: the number that was set, else
        n_ctx. Set it if training rows were shorter than n_ctx. ValueError unless it is 1 to
        n_ctx."""
        return self._trained_ctx or self.cfg.n_ctx

    @trained_ctx.setter
    def trained_ctx(self, positions: int) -> None:
        if not 1 <= positions <= self.cfg.n_ctx:
            raise ValueError(f"trained_ctx={positions} must be 1 to n_ctx={self.cfg.n_ctx}")
        self._trained_ctx = positions

    # The weights by name, read at each use. To edit one, use the parameter: `blocks[1].attn.W_Q`.

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """The embedding of each token."""
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        """The embedding of each position; ValueError for a model that embeds no positions."""
        if not self.cfg.embeds_positions:
            kind = self.cfg.positional_embedding_type
            raise ValueError(f"the model has no positions to embed: the type is {kind!r}")
        return self.pos_embed.W_pos

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """The unembedding."""
        return self.unembed.W_U

    @property
    def W_Q(self) -> LayerHead:
        """Query weights."""
        return weights.stack(self, "attn", "W_Q")

    @property
    def W_K(self) -> LayerHead:
        """Key weights."""
        return weights.stack(self, "attn", "W_K")

    @property
    def W_V(self) -> LayerHead:
        """Value weights."""
        return weights.stack(self, "attn", "W_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Output weights."""
        return weights.stack(self, "attn", "W_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """MLP input weights; ValueError for an attention-only model."""
        return weights.stack(self, "mlp", "W_in")

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """MLP output weights; ValueError for an attention-only model."""
        return weights.stack(self, "mlp", "W_out")

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T per layer and head; `algebra.QK` folds norm, scale and rotary positions in."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O per layer and head, d_model x d_model; `algebra.OV` folds the norm in."""
        return FactoredMatrix(self.W_V, self.W_O)

    W_gate = property(weights.W_gate)
    accumulated_bias = weights.accumulated_bias
