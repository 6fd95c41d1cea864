"""The modules of a HookedTransformer, with TransformerLens's arguments and attributes."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from circuits.hooked_transformer.config import HookedTransformerConfig
from circuits.hooked_transformer.matrices import FactoredMatrix
from circuits.model import (
    HeadsOrResid,
    LayerPast,
    Resid,
    Rows,
    Seen,
    attention,
    block,
    layers,
    triangle,
)


class Block(block.Block):
    """A block that is called with the stream: `block(resid, shortformer_pos_embed=None)`."""

    cfg: HookedTransformerConfig

    def forward(
        self,
        resid: Resid,
        shortformer_pos_embed: block.Places = None,
        past_kv_cache_entry: LayerPast | None = None,
        seen: Seen | None = None,
        rows: Rows | None = None,
        attention_mask: Any = None,
    ) -> Resid:
        """The stream after the block. ValueError if a shortformer block gets no positions."""
        if attention_mask is not None:
            raise ValueError("attention_mask is for the model: write model(resid, start_at_layer="
                             "layer, stop_at_layer=layer + 1, attention_mask=mask)")  # fmt: skip
        if self.cfg.shortformer and shortformer_pos_embed is None:
            raise ValueError("the block of a shortformer model reads positions too: write "
                             "block(resid, model.pos_embed(tokens))")  # fmt: skip
        if seen is None and not self.cfg.causal:
            n = resid.shape[1]
            seen = torch.ones(1, 1, n, n, dtype=torch.bool, device=resid.device)
        return super().forward(resid, shortformer_pos_embed, past_kv_cache_entry, seen, rows)


class Attention(attention.Attention):
    """Heads that are called with `query_input`, `key_input` and `value_input`."""

    cfg: HookedTransformerConfig

    def forward(
        self,
        query_input: HeadsOrResid,
        key_input: HeadsOrResid,
        value_input: HeadsOrResid,
        past_kv_cache_entry: LayerPast | None = None,
        seen: Seen | None = None,
        rows: Rows | None = None,
    ) -> Resid:
        """The sum of all heads' outputs to the stream."""
        past = past_kv_cache_entry
        return super().forward(query_input, key_input, value_input, past, seen, rows)

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T per head, without norm and scale."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O per head, without norm."""
        return FactoredMatrix(self.W_V, self.W_O)

    @property
    def attn_scale(self) -> float:
        """The divisor of attention scores."""
        return self.scale

    @property
    def mask(self) -> Bool[Tensor, "n_ctx n_ctx"]:
        """True where a destination (row) sees a source (column)."""
        mask = triangle(self.cfg.n_ctx, self.cfg.n_ctx, self.W_Q.device)
        return mask if self.cfg.causal else torch.ones_like(mask)

    @property
    def IGNORE(self) -> Float[Tensor, ""]:
        """The score of a masked source: minus infinity."""
        return torch.tensor(-torch.inf, device=self.W_Q.device)


class PosEmbed(layers.PosEmbed):
    """Positional embeddings that are called with tokens, whose shape they read."""

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"] | int,
        past_kv_pos_offset: int = 0,
        attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "*batch pos d_model"]:
        """A row of W_pos for each token, from `past_kv_pos_offset` on. With a mask the position of
        a token is the number of unmasked tokens before it."""
        if not isinstance(tokens, Tensor):
            return super().forward(tokens, past_kv_pos_offset, attention_mask)
        if attention_mask is not None:
            places = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, past_kv_pos_offset:]
            return super().forward(tokens.shape[1], 0, places)
        pos = super().forward(tokens.shape[-1], past_kv_pos_offset)
        return pos.expand(*tokens.shape[:-1], -1, -1)


class MLP(layers.MLP):
    """An MLP with its activation function as `act_fn`."""

    @property
    def act_fn(self) -> Any:
        """The activation function."""
        return self.act


OF = {block.Block: Block, attention.Attention: Attention, layers.PosEmbed: PosEmbed,
      layers.MLP: MLP}  # fmt: skip
PARTS = (*OF, layers.Embed, layers.Unembed, layers.Norm)


def become_parts(of: nn.Module, cfg: HookedTransformerConfig) -> None:
    """Give each module of a GPT its class in `OF`, its name, this config and its layer."""
    for name, part in of.named_modules():
        part.__class__ = OF.get(type(part), type(part))
        if isinstance(part, PARTS):
            block = name.split(".")[1:2] if name.startswith("blocks.") else ()
            vars(part).update(name=name, cfg=cfg, layer_id=int(*block) if block else None)
