"""GPT-2 and GPT-Neo: learned positions, heads and MLP one after the other."""

from collections.abc import Sequence

from torch import Tensor

from circuits.io.families.reading import Family, Fused
from circuits.model import GPTConfig


def side_by_side(fused: Tensor, cfg: GPTConfig) -> Sequence[Tensor]:
    """All queries, then all keys, then all values."""
    return fused.chunk(3)


STEM = {
    "embed.E": "transformer.wte",
    "pos_embed.pos": "transformer.wpe",
    "ln_final": "transformer.ln_f",
    "unembed.U": "lm_head",
}
NORMS_AND_MLP = {"ln1": "ln_1", "ln2": "ln_2", "mlp.in": "mlp.c_fc", "mlp.out": "mlp.c_proj"}
SHARED = {"d_vocab": "vocab_size", "act_fn": "activation_function", "eps": "layer_norm_epsilon"}

FAMILIES = {
    "gpt2": Family(
        fields={
            **SHARED,
            "n_layers": "n_layer",
            "d_model": "n_embd",
            "d_head": lambda theirs: theirs.n_embd // theirs.n_head,
            "n_ctx": "n_positions",
            "d_mlp": "n_inner",
            "use_attn_scale": "scale_attn_weights",
            "scale_attn_by_inverse_layer_idx": "scale_attn_by_inverse_layer_idx",
        },
        stem=STEM,
        block="transformer.h.{}",
        parts={
            "attn.Q attn.K attn.V": Fused("attn.c_attn", side_by_side),
            "attn.O": "attn.c_proj",
            **NORMS_AND_MLP,
        },
        inputs_first=True,
    ),
    "gpt_neo": Family(
        fields={
            **SHARED,
            "n_layers": "num_layers",
            "d_model": "hidden_size",
            "d_head": lambda theirs: theirs.hidden_size // theirs.num_heads,
            "n_ctx": "max_position_embeddings",
            "d_mlp": "intermediate_size",
            "use_attn_scale": lambda theirs: False,
            "use_local_attn": lambda theirs: True,
            "attn_types": "attention_layers",
            "window_size": "window_size",
        },
        stem=STEM,
        block="transformer.h.{}",
        parts={
            "attn.Q": "attn.attention.q_proj",
            "attn.K": "attn.attention.k_proj",
            "attn.V": "attn.attention.v_proj",
            "attn.O": "attn.attention.out_proj",
            **NORMS_AND_MLP,
        },
    ),
}
