"""The parts of a HookedTransformer, with the arguments and attributes that scripts know of them."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from circuits.hooked_transformer.config import HookedTransformerConfig
from circuits.hooked_transformer.matrices import FactoredMatrix
from circuits.model import HeadsOrResid, LayerPast, Resid, Seen, attention, block, layers, triangle

INSTEAD = {
    "apply_causal_mask": "write scores.masked_fill(~attn.mask, attn.IGNORE); hook_attn_scores has "
                         "masked ones",
    "calculate_qkv_matrices": "write run_with_cache(tokens)[1]['q', layer], and 'k' and 'v'",
    "calculate_attention_scores": "write run_with_cache(tokens)[1]['attn_scores', layer]",
    "calculate_z_scores": "write run_with_cache(tokens)[1]['z', layer]",
    "apply_rotary": "there are no rotary positions",
    "create_alibi_bias": "there are no ALiBi positions",
    "attn_type": "every head sees the whole context",
    "apply_mlp": "write block.mlp(block.ln2(resid_mid))",
    "hook_attn_in": "there are hook_q_input, hook_k_input and hook_v_input",
    "select_activation_function": "write mlp.act_fn",
    "W_gate": "gated MLPs cannot be expressed",
    "length": "write ln.shape",
    "normalization_type": "write block.cfg.normalization_type",
    "d_mlp": "write mlp.cfg.d_mlp",
    "rotate_every_two": "there are no rotary positions",
    "calculate_sin_cos_rotary": "there are no rotary positions",
    "hook_in": "write model.hook_dict['ln_final.hook_normalized']",
    "hook_out": "the logits are what the model returns",
}  # fmt: skip
"What parts of a HookedTransformer of TransformerLens have and these have not."


class Part(nn.Module):
    """A part that has the config of its model, and says of what it lacks what to write instead."""

    name: str
    cfg: HookedTransformerConfig
    layer_id: int | None

    def __getattr__(self, name: str) -> Any:
        if name in INSTEAD:
            raise AttributeError(f"{type(self).__name__} has no {name!r} here: {INSTEAD[name]}")
        return super().__getattr__(name)


class Block(Part, block.Block):
    """A block that is called with the stream: `block(resid, shortformer_pos_embed=None)`."""

    def forward(
        self,
        resid: Resid,
        shortformer_pos_embed: block.Places = None,
        past_kv_cache_entry: LayerPast | None = None,
        seen: Seen | None = None,
        attention_mask: Any = None,
    ) -> Resid:
        """The stream after the block. ValueError for shortformer positions that are missing."""
        if attention_mask is not None:
            raise ValueError("attention_mask is for the model: write model(resid, start_at_layer="
                             "layer, stop_at_layer=layer + 1, attention_mask=mask)")  # fmt: skip
        if self.cfg.shortformer and shortformer_pos_embed is None:
            raise ValueError("the block of a shortformer model reads positions too: write "
                             "block(resid, model.pos_embed(tokens))")  # fmt: skip
        if seen is None and not self.cfg.causal:
            n = resid.shape[1]
            seen = torch.ones(1, 1, n, n, dtype=torch.bool, device=resid.device)
        return super().forward(resid, shortformer_pos_embed, past_kv_cache_entry, seen)


class Attention(Part, attention.Attention):
    """Heads that are called with `query_input`, `key_input` and `value_input`."""

    def forward(
        self,
        query_input: HeadsOrResid,
        key_input: HeadsOrResid,
        value_input: HeadsOrResid,
        past_kv_cache_entry: LayerPast | None = None,
        seen: Seen | None = None,
    ) -> Resid:
        """What the heads write to the stream."""
        return super().forward(query_input, key_input, value_input, past_kv_cache_entry, seen)

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
        """What scores are divided by."""
        return self.scale

    @property
    def mask(self) -> Bool[Tensor, "n_ctx n_ctx"]:
        """Which sources a destination sees."""
        mask = triangle(self.cfg.n_ctx, self.cfg.n_ctx, self.W_Q.device)
        return mask if self.cfg.causal else torch.ones_like(mask)

    @property
    def IGNORE(self) -> Float[Tensor, ""]:
        """The score of what is not seen: minus infinity."""
        return torch.tensor(-torch.inf, device=self.W_Q.device)


class PosEmbed(Part, layers.PosEmbed):
    """Positions that are called with tokens, for their shape."""

    def forward(
        self,
        tokens: Int[Tensor, "batch pos"] | int,
        past_kv_pos_offset: int = 0,
        attention_mask: Int[Tensor, "batch pos"] | Bool[Tensor, "batch pos"] | None = None,
    ) -> Float[Tensor, "*batch pos d_model"]:
        """A row of W_pos for each token, from an offset on; by the tokens before it that are no
        pads where there is a mask."""
        if not isinstance(tokens, Tensor):
            return super().forward(tokens, past_kv_pos_offset, attention_mask)
        if attention_mask is not None:
            places = (attention_mask.cumsum(1) - 1).clamp(min=0)[:, past_kv_pos_offset:]
            return super().forward(tokens.shape[1], 0, places)
        pos = super().forward(tokens.shape[-1], past_kv_pos_offset)
        return pos.expand(*tokens.shape[:-1], -1, -1)


class MLP(Part, layers.MLP):
    """An MLP whose activation function has its name."""

    @property
    def act_fn(self) -> Any:
        """The activation function."""
        return self.act


class Embed(Part, layers.Embed):
    """W_E by token."""


class Unembed(Part, layers.Unembed):
    """The logits of a stream."""


class Norm(Part, layers.Norm):
    """A norm."""


OF = {block.Block: Block, attention.Attention: Attention, layers.PosEmbed: PosEmbed,
      layers.MLP: MLP, layers.Embed: Embed, layers.Unembed: Unembed, layers.Norm: Norm}  # fmt: skip


def become_parts(of: nn.Module, cfg: HookedTransformerConfig) -> None:
    """Make each part of a GPT one of these, with this config and the number of its block."""
    for name, part in of.named_modules():
        part.__class__ = OF.get(type(part), type(part))
        if isinstance(part, Part):
            block = name.split(".")[1:2] if name.startswith("blocks.") else ()
            part.name, part.cfg, part.layer_id = name, cfg, int(*block) if block else None
