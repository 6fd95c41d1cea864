"""GPT: a hookable minimal transformer, from top to bottom in the order data meets it.

    tokens ─ W_E ─┬───────────────┬──────────────┬─ norm ─ W_U ─ logits
                  │               │              │
                  └ norm ─ heads ─┴ norm ─ MLP ──┘ ...       resid_pre, resid_mid, resid_post

Row vectors, as in TransformerLens: W_QK = W_Q W_K^T and W_OV = W_V W_O. The paper (Elhage et al.
2021, https://transformer-circuits.pub/2021/framework/index.html) writes columns.

Every HookPoint below is the identity until somebody listens. What is only there to be seen (scores,
patterns, per-head results and inputs) is computed when it is listened to and else fused away.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from circuits.hooks import CACHE_NAMES, Hooked, HookPoint
from circuits.matrices import at_least_single
from circuits.model.attention import Attention, Seen, visible
from circuits.model.config import GPTConfig, check_predicts
from circuits.model.generation import Speaks
from circuits.model.kv_cache import KeyValueCache, LayerPast
from circuits.model.layers import MLP, Embed, HeadsOrResid, PosEmbed, Resid, Unembed, norm
from circuits.model.vocabulary import (
    Ids,
    Vocabulary,
    check_length,
    check_words,
    checked_mask,
    checked_tokens,
    is_text,
)
from circuits.model.weights import Stacked, misfit

Places = Float[Tensor, "... pos d_model"] | None
"What shortformer positions add to the inputs of W_Q and W_K; per batch when somebody listens."


class Block(nn.Module):
    """resid_mid = resid_pre + heads(resid_pre); resid_post = resid_mid + mlp(resid_mid)."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.n_heads = cfg.n_heads
        self.ln1 = norm(cfg)
        self.attn = Attention(cfg)
        self.hook_resid_pre = HookPoint()  # [batch pos d_model]
        # Per head [batch pos head d_model], before ln1 and before positions are added.
        self.hook_q_input = HookPoint(shared=True, per_head=True)
        self.hook_k_input = HookPoint(shared=True, per_head=True)
        self.hook_v_input = HookPoint(shared=True, per_head=True)
        self.hook_attn_out = HookPoint()  # [batch pos d_model], as are all below
        self.hook_resid_mid = HookPoint()
        if cfg.d_mlp is not None:
            self.ln2 = norm(cfg)
            self.mlp = MLP(cfg, cfg.d_mlp)
            self.hook_mlp_in = HookPoint(shared=True)
            self.hook_mlp_out = HookPoint()
        else:
            self.mlp = None
        self.hook_resid_post = HookPoint()

    def forward(
        self,
        resid: Resid,
        pos: Places,
        past: LayerPast | None = None,
        seen: Seen | None = None,
    ) -> Resid:
        resid_pre = self.hook_resid_pre(resid)
        attn_out = self.hook_attn_out(self.attn(*self._reads(resid_pre, pos), past, seen))
        resid_mid = self.hook_resid_mid(resid_pre + attn_out)
        if self.mlp is None:
            return self.hook_resid_post(resid_mid)
        mlp_out = self.hook_mlp_out(self.mlp(self.ln2(self.hook_mlp_in(resid_mid))))
        return self.hook_resid_post(resid_mid + mlp_out)

    def _reads(
        self, resid_pre: Resid, pos: Places
    ) -> tuple[HeadsOrResid, HeadsOrResid, HeadsOrResid]:
        """The inputs of W_Q, W_K and W_V; shortformer positions enter the first two."""
        normed = self.ln1(resid_pre)
        shared = normed if pos is None else normed + pos
        return (
            self._read(self.hook_q_input, resid_pre, pos, shared),
            self._read(self.hook_k_input, resid_pre, pos, shared),
            self._read(self.hook_v_input, resid_pre, None, normed),
        )

    def _read(self, point: HookPoint, resid_pre: Resid, pos: Places, shared: Resid) -> HeadsOrResid:
        """What all heads read, or an input for each where somebody listens."""
        if not point.has_active_hooks:
            return shared
        per_head = repeat(resid_pre, "batch pos d -> batch pos head d", head=self.n_heads)
        normed = self.ln1(point(per_head))
        return normed if pos is None else normed + pos.unsqueeze(-2)


def token_loss(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"] | None
) -> Float[Tensor, "batch pos-1"]:
    """Next-token loss in nats at each position but the last: -log softmax(logits)[next token]."""
    if tokens is None or tokens.shape[1] < 2:
        raise ValueError("the loss needs at least two tokens, and no residual stream as input")
    log_probs = at_least_single(logits[:, :-1]).log_softmax(-1)
    return -log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)


def mean_loss(
    loss: Float[Tensor, "batch next"], real: Bool[Tensor, "batch src"] | None, per_token: bool
) -> Float[Tensor, "*batch_pos"]:
    """The loss of tokens after tokens: its mean, or of each, where it is 0 at pads."""
    if real is None:
        return loss if per_token else loss.mean()
    real = real[:, -loss.shape[1] - 1 :]
    both = real[:, :-1] & real[:, 1:]
    if not both.any():
        raise ValueError("attention_mask leaves no token that follows a token: there is no loss")
    loss = loss.where(both, 0)
    return loss if per_token else loss.sum() / both.sum()


class GPT(Hooked, Stacked, Speaks):
    """embed -> blocks -> norm -> unembed, with TransformerLens's parameter and hook names."""

    def __init__(self, cfg: GPTConfig, tokenizer: Vocabulary | None = None) -> None:
        super().__init__()
        check_words(tokenizer, cfg)
        self.cfg, self.tokenizer = cfg, tokenizer
        self.hook_tokens = HookPoint(shared=True)  # [batch pos]
        self.embed = Embed(cfg)
        self.hook_embed = HookPoint()  # [batch pos d_model]
        if cfg.positional_embedding_type != "none":
            self.pos_embed = PosEmbed(cfg)
            cache_name = CACHE_NAMES["hook_pos_embed"] if cfg.shortformer else None
            self.hook_pos_embed = HookPoint(
                shared=True, cache_name=cache_name
            )  # [batch pos d_model]
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.n_layers))
        self.ln_final = norm(cfg)
        self.unembed = Unembed(cfg)
        self.name_hooks()
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        generator = torch.Generator().manual_seed(self.cfg.seed)
        for name, weight in self.named_parameters():
            if name.rpartition(".")[2].startswith("W_"):
                own = self.cfg.embed_init_range if name == "embed.W_E" else None
                deviation = own or self.cfg.init_range
                weight.copy_(torch.randn(weight.shape, generator=generator) * deviation)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Take these weights, by name; RuntimeError for what is missing, unknown or of another
        shape, with the likely reason."""
        try:
            return super().load_state_dict(state_dict, strict=strict, assign=assign)
        except RuntimeError as error:
            why = misfit(self.cfg, self.state_dict(), state_dict)
            raise RuntimeError(f"{error}\n{why}".rstrip()) from None

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
        """Logits [batch pos d_vocab], the next-token loss in nats (a mean, or [batch pos-1] per
        token), or both as (logits, loss); with None nothing is unembedded or returned.

        `input` is tokens or text, or the residual stream before block `start_at_layer`. Where
        `attention_mask` is 0 there are pads, on whichever side: no token sees them, they have no
        place and no loss, and each row has the logits it has alone (see `to_padded_tokens`). With
        `stop_at_layer` the residual stream before that block is returned instead. With
        `past_kv_cache` the input continues what is in there, and is added to it: text gets no BOS
        then, positions go on, hooks and results are of the new tokens, whose sources are all.
        """
        if return_type not in ("logits", "loss", "both", None):
            raise ValueError(f"return_type={return_type!r}; choose logits, loss, both or None")
        wants_loss = return_type in ("loss", "both")
        if (wants_loss and stop_at_layer is not None) or (loss_per_token and not wants_loss):
            raise ValueError("a loss wants return_type='loss' or 'both', and no stop_at_layer")
        if wants_loss:
            check_predicts(self.cfg, "the next-token loss")
        first, stop = self._layer(start_at_layer, 0), self._layer(stop_at_layer, self.cfg.n_layers)
        if first > stop:
            raise ValueError(f"cannot start at layer {first} and stop before layer {stop}")
        start = 0 if past_kv_cache is None else past_kv_cache.n
        tokens = None if start_at_layer is not None else self._tokens(input, bos=start == 0)
        given = self._entered(input) if tokens is None else tokens
        batch, n = given.shape[:2]
        real = checked_mask(attention_mask, given, piece=past_kv_cache is not None)
        pasts: Sequence[LayerPast | None] = [None] * self.cfg.n_layers
        if past_kv_cache is not None:
            past_kv_cache.check(self.cfg, batch, n, layers=stop - first)
            real, pasts = past_kv_cache.joined(real, batch, n), past_kv_cache.layers
        seen = visible(self.cfg, n, start + n, real, given.device)
        resid = given if tokens is None else self.hook_embed(self.embed(tokens))
        pos = None
        if tokens is not None or self.cfg.shortformer:
            pos = self._positions(batch, n, start, real)
        if pos is not None and not self.cfg.shortformer:
            resid, pos = resid + pos, None
        for block, past in zip(self.blocks[first:stop], pasts[first:stop], strict=True):
            resid = block(resid, pos, past, seen)
        if past_kv_cache is not None:
            past_kv_cache.advance(n, real)
        if stop_at_layer is not None:
            return resid
        normed = self.ln_final(resid)
        if return_type is None:
            return None
        logits = self.unembed(normed)
        if return_type == "logits":
            return logits
        loss = mean_loss(token_loss(logits, tokens), real, loss_per_token)
        return loss if return_type == "loss" else (logits, loss)

    def _tokens(self, input: Any, bos: bool) -> Int[Tensor, "batch pos"]:
        tokens = self.to_tokens(input, prepend_bos=bos) if is_text(input) else input
        return self.hook_tokens(checked_tokens(tokens, self.cfg).to(self.W_E.device))

    def _positions(
        self, batch: int, n: int, start: int, real: Bool[Tensor, "batch src"] | None
    ) -> Places:
        """Embeddings of the last `n` positions: a token's place counts the tokens before it."""
        if self.cfg.positional_embedding_type == "none":
            return None
        places = None if real is None else (real.cumsum(1) - 1).clamp(min=0)[:, -n:]
        pos = self.pos_embed(n, start, places)
        if not self.hook_pos_embed.has_active_hooks:
            return pos
        return self.hook_pos_embed(pos.expand(batch, -1, -1))

    def _entered(self, resid: Any) -> Resid:
        if not isinstance(resid, Tensor) or resid.ndim != 3 or resid.shape[2] != self.cfg.d_model:
            got = list(resid.shape) if isinstance(resid, Tensor) else type(resid).__name__
            raise ValueError(
                f"start_at_layer wants a stream [batch pos {self.cfg.d_model}], got {got}"
            )
        check_length(resid.shape[1], self.cfg)
        return resid.clone()  # hooks may write into it, and it is the caller's

    def _layer(self, layer: int | None, default: int) -> int:
        n = self.cfg.n_layers
        if layer is None:
            return default
        if not -n <= layer <= n:
            raise ValueError(f"layer {layer} does not exist: the model has {n}, counted from 0")
        return layer + n if layer < 0 else layer
