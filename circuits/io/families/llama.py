"""Llama and its line: rotary positions, RMS norms, gated MLPs, and hardly a bias.

Mistral's windows must hold the whole context. A model with grouped queries is refused by the name
of the field, n_key_value_heads.
"""

from collections.abc import Callable, Mapping
from typing import Any

from circuits.io.families.reading import Family, rope

FIELDS: Mapping[str, str | Callable[[Any], Any]] = {
    "n_layers": "num_hidden_layers",
    "d_model": "hidden_size",
    "n_heads": "num_attention_heads",
    "n_key_value_heads": "num_key_value_heads",
    "d_head": lambda theirs: (
        getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    ),
    "d_mlp": "intermediate_size",
    "d_vocab": "vocab_size",
    "n_ctx": "max_position_embeddings",
    "act_fn": "hidden_act",
    "eps": "rms_norm_eps",
    "normalization_type": lambda theirs: "RMS",
    "gated_mlp": lambda theirs: True,
    "positional_embedding_type": lambda theirs: "rotary",
    "rotary_base": lambda theirs: rope(theirs, "rope_theta", 1e4),
}
WINDOWS: Mapping[str, Callable[[Any], Any]] = {
    "use_local_attn": lambda theirs: getattr(theirs, "sliding_window", None) is not None,
    "attn_types": lambda theirs: ["local"],
    "window_size": lambda theirs: getattr(theirs, "sliding_window", None),
}
PARTS = {
    "ln1": "input_layernorm",
    "ln2": "post_attention_layernorm",
    "attn.Q": "self_attn.q_proj",
    "attn.K": "self_attn.k_proj",
    "attn.V": "self_attn.v_proj",
    "attn.O": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.in": "mlp.up_proj",
    "mlp.out": "mlp.down_proj",
}
STEM = {"embed.E": "model.embed_tokens", "ln_final": "model.norm", "unembed.U": "lm_head"}
PLACES: dict[str, Any] = {"stem": STEM, "block": "model.layers.{}", "parts": PARTS}

FAMILIES = {
    "llama": Family(
        FIELDS, **PLACES, biased=lambda theirs: theirs.attention_bias or theirs.mlp_bias
    ),
    "mistral": Family({**FIELDS, **WINDOWS}, **PLACES, biased=lambda theirs: False),
    "qwen2": Family({**FIELDS, **WINDOWS}, **PLACES),
}
