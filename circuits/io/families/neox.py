"""GPT-NeoX (Pythia) and GPT-J: rotary positions, heads and MLP of a block side by side."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from circuits.io.families.reading import Family, Fused, rope
from circuits.model import GPTConfig


def head_by_head(fused: Tensor, cfg: GPTConfig) -> Sequence[Tensor]:
    """Query, key and value of head 0, then of head 1, and so on."""
    by_head = fused.unflatten(0, (cfg.n_heads, 3, cfg.d_head))
    return [part.flatten(0, 1) for part in by_head.unbind(1)]


def _neox_head(theirs: Any) -> int:
    return theirs.hidden_size // theirs.num_attention_heads


FAMILIES = {
    "gpt_neox": Family(
        fields={
            "n_layers": "num_hidden_layers",
            "d_model": "hidden_size",
            "d_head": _neox_head,
            "d_mlp": "intermediate_size",
            "d_vocab": "vocab_size",
            "n_ctx": "max_position_embeddings",
            "act_fn": "hidden_act",
            "eps": "layer_norm_eps",
            "positional_embedding_type": lambda theirs: "rotary",
            "rotary_dim": lambda theirs: int(
                _neox_head(theirs) * rope(theirs, "partial_rotary_factor", 1.0)
            ),
            "rotary_base": lambda theirs: rope(theirs, "rope_theta", 1e4),
            "parallel_attn_mlp": "use_parallel_residual",
        },
        stem={
            "embed.E": "gpt_neox.embed_in",
            "ln_final": "gpt_neox.final_layer_norm",
            "unembed.U": "lm_head|embed_out",
        },
        block="gpt_neox.layers.{}",
        parts={
            "ln1": "input_layernorm",
            "ln2": "post_attention_layernorm",
            "attn.Q attn.K attn.V": Fused("attention.query_key_value", head_by_head),
            "attn.O": "attention.dense",
            "mlp.in": "mlp.dense_h_to_4h",
            "mlp.out": "mlp.dense_4h_to_h",
        },
    ),
    "gptj": Family(
        fields={
            "n_layers": "n_layer",
            "d_model": "n_embd",
            "d_head": lambda theirs: theirs.n_embd // theirs.n_head,
            "d_mlp": "n_inner",
            "d_vocab": "vocab_size",
            "n_ctx": "n_positions",
            "act_fn": "activation_function",
            "eps": "layer_norm_epsilon",
            "positional_embedding_type": lambda theirs: "rotary",
            "rotary_dim": "rotary_dim",
            "rotary_adjacent_pairs": lambda theirs: True,
            "parallel_attn_mlp": lambda theirs: True,
        },
        stem={
            "embed.E": "transformer.wte",
            "ln_final": "transformer.ln_f",
            "unembed.U": "lm_head",
        },
        block="transformer.h.{}",
        parts={
            "ln1": "ln_1",
            "ln2": "ln_1",  # heads and MLP share one norm: two equal norms
            "attn.Q": "attn.q_proj",
            "attn.K": "attn.k_proj",
            "attn.V": "attn.v_proj",
            "attn.O": "attn.out_proj",
            "mlp.in": "mlp.fc_in",
            "mlp.out": "mlp.fc_out",
        },
    ),
}
