"""A GPT from configs, state dicts and tokenizers of other programs, with strict checks.

A HookedTransformer's parameters have the names and shapes of a GPT's. A field of its config is a
field of GPTConfig, or has the value that every GPT has, or does not change the computation. For
every other field ValueError names it.
(TransformerLens 2.x and 3.x, `HookedTransformerConfig`)
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from circuits.io.weight_files import read_weights
from circuits.model import (
    GPT,
    ROTARY,
    GPTConfig,
    Vocabulary,
    check_words,
    is_bias,
    misfit,
    unwrap_names,
)

_SHAPES = ("n_layers", "d_model", "d_head", "d_vocab", "n_ctx")
_PARTS = ("n_heads", "d_mlp", "act_fn", "attn_only", "normalization_type", "eps", "attn_scale",
          "positional_embedding_type", "use_attn_scale", "use_local_attn", "window_size",
          "attn_types", "n_key_value_heads", "attention_dir", "d_vocab_out",
          "final_rms", "parallel_attn_mlp", "gated_mlp", *ROTARY)  # fmt: skip
_ALWAYS = {
    "scale_attn_by_inverse_layer_idx": False, "post_embedding_ln": False, "use_qk_norm": False,
    "use_normalization_before_and_after": False, "rmsnorm_uses_offset": False,
    "num_experts": None, "experts_per_token": None, "scale_embedding": False,
    "attn_scores_soft_cap": 0.0, "output_logits_soft_cap": 0.0, "load_in_4bit": False,
    "relative_attention_max_distance": None, "relative_attention_num_buckets": None,
    "per_layer_head_dim": None, "per_layer_num_key_value_heads": None, "is_stateful": False,
    "clip_qkv": None, "use_logn_attn": False, "use_attention_sinks": False,
    "quantization_method": None, "is_audio_model": False, "is_visual_model": False,
    "is_multimodal": False, "use_NTK_by_parts_rope": False, "use_yarn_rope": False,
    "use_dynamic_ntk_rope": False, "rotary_base_local": None,
}  # fmt: skip
"Fields with the value that every GPT has. Any other value raises ValueError."
_SILENT = (
    # device, source and name
    "device", "n_devices", "dtype", "model_name", "original_architecture", "architecture",
    "from_checkpoint", "checkpoint_index", "checkpoint_label_type", "checkpoint_value", "n_params",
    "trust_remote_code", "attn_implementation", "tie_word_embeddings", "uses_rms_norm",
    "split_attention_weights", "layer_norm_folding",
    # weights come from the checkpoint
    "init_weights", "init_mode", "initializer_range", "seed",
    # text
    "tokenizer_name", "default_prepend_bos", "tokenizer_prepends_bos", "tokenizer_appends_eos",
    "default_padding_side", "decoder_start_token_id", "bos_token_id", "eos_token_id",
    # flags of hook points
    "use_attn_result", "use_split_qkv_input", "use_hook_mlp_in", "use_attn_in", "use_hook_tokens",
    # details of parts that raise ValueError themselves
    "qk_norm_after_rope", "norm_topk_prob", "train_seq_length",
    "ungroup_grouped_query_attention", "mm_tokens_per_image",
)  # fmt: skip
"Fields that do not change the computation."
_SILENT_GROUPS = ("_", "rotary_", "yarn_", "NTK_", "vision_")
_UNSET = -1
"TransformerLens's value for a number that is not set."
_SINUSOIDS = 2**22
"The number of sinusoidal values that a config may always ask for; no checkpoint holds them."
_SYNONYMS = {"swish": "silu", "gelu_pytorch_tanh": "gelu_new"}


def from_state_dict(
    cfg: GPTConfig | Mapping[str, Any],
    weights: Mapping[str, Tensor] | Path | str,
    tokenizer: Vocabulary | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    zero_biases: bool = False,
) -> GPT:
    """The GPT of a HookedTransformer's config (a GPTConfig or a dict of fields) and state dict (a
    mapping, or a .safetensors or .pth file); in eval mode, on CPU.

    Prefixes of torch.compile and DistributedDataParallel are removed from the names. With
    `zero_biases` a missing bias is 0, for models in which only MLPs have biases. No code in a
    pickle is run. ValueError for a field that a GPT cannot express, and for a tensor that is
    missing, unknown, of another shape, or not finite.
    """
    cfg = cfg if isinstance(cfg, GPTConfig) else config_of(cfg)
    weights = Path(weights) if isinstance(weights, str) else weights
    return build(cfg, weights, tokenizer, dtype, zero_biases)


def build(
    cfg: GPTConfig,
    weights: Mapping[str, Tensor] | Path,
    tokenizer: Vocabulary | None = None,
    dtype: torch.dtype = torch.float32,
    zero_biases: bool = False,
) -> GPT:
    """The GPT of a config and weights by name, or of a config and a weight file; in eval mode, on
    CPU. ValueError if they do not fit, before memory of the config's size is allocated.
    """
    if isinstance(weights, Path):
        named = read_weights(weights)
        try:
            return build(cfg, named, tokenizer, dtype, zero_biases)
        except ValueError as error:
            raise ValueError(f"{weights}: {error}") from None
    weights = unwrap_names(weights)
    check_fits(cfg, weights, tokenizer)
    model = GPT(cfg, tokenizer).to(dtype)
    if zero_biases:
        zeros = {name: w for name, w in model.state_dict().items() if is_bias(name)}
        weights = {**{name: w.new_zeros(w.shape) for name, w in zeros.items()}, **weights}
    load_weights(model, weights)
    return model.eval()


def check_fits(cfg: GPTConfig, weights: Mapping[str, Tensor], tokenizer: Vocabulary | None) -> None:
    """ValueError if the sizes of a config differ from the sizes of weights and vocabulary."""
    check_words(tokenizer, cfg)
    layers = sum(name.endswith(".attn.W_Q") for name in weights)
    if layers != cfg.n_layers:
        raise ValueError(f"{layers} layers are in the checkpoint, but n_layers={cfg.n_layers}")
    sizes: dict[str, tuple[int, ...]] = {
        "embed.W_E": (cfg.d_vocab, cfg.d_model),
        "unembed.W_U": (cfg.d_model, cfg.d_vocab_out or cfg.d_vocab),
    }
    if cfg.n_layers:
        sizes["blocks.0.attn.W_Q"] = (cfg.n_heads, cfg.d_model, cfg.d_head)
    if cfg.n_layers and cfg.d_mlp is not None:
        sizes["blocks.0.mlp.W_in"] = (cfg.d_model, cfg.d_mlp)
    if cfg.positional_embedding_type in ("standard", "shortformer"):
        sizes["pos_embed.W_pos"] = (cfg.n_ctx, cfg.d_model)
    for name, size in sizes.items():
        if name not in weights:
            raise ValueError(f"the checkpoint does not fit the config: it lacks {[name]}")
        _check_shape(name, weights[name], size)
    _check_tables(cfg, sum(weight.numel() for weight in weights.values()))


def _check_tables(cfg: GPTConfig, held: int) -> None:
    """ValueError for tables of sines that are far larger than the checkpoint, which holds `held`
    numbers: no checkpoint has them, so a config alone could ask for any size."""
    kind = cfg.positional_embedding_type
    width = cfg.d_model if cfg.sinusoidal else cfg.turned_dims if cfg.rotary else 0
    if cfg.n_ctx * width > max(held, _SINUSOIDS):
        raise ValueError(
            f"n_ctx={cfg.n_ctx} {kind} positions of {width} dims are more numbers than all the "
            f"{held} in the checkpoint"
        )


def _check_shape(name: str, weight: Tensor, wanted: Sequence[int]) -> None:
    if list(weight.shape) != list(wanted):
        raise ValueError(
            f"{name} is {list(weight.shape)} in the checkpoint, but {list(wanted)} by the config"
        )


def config_of(fields: Mapping[str, Any]) -> GPTConfig:
    """A config from HookedTransformerConfig's fields; ValueError names a field that a GPT cannot
    express."""
    _check_known(fields)
    given = {name: value for name, value in fields.items() if value not in (None, _UNSET)}
    shape = {name: given[name] for name in _SHAPES}
    n_heads = given.get("n_heads", shape["d_model"] // shape["d_head"])
    norm = fields.get("normalization_type", "LN")
    always = {**_ALWAYS, "n_key_value_heads": n_heads}
    if not str(norm).startswith("RMS"):
        always["final_rms"] = False
    for name, value in always.items():
        if name in given and given[name] != value:
            raise ValueError(
                f"{name}={given[name]!r} cannot be expressed: in a GPT it is always {value!r}"
            )
    _check_local(given, shape["n_ctx"])
    d_vocab_out = given.get("d_vocab_out")
    mlp = {}
    if not given.get("attn_only"):
        act_fn = given.get("act_fn")
        mlp = {"d_mlp": given.get("d_mlp", 4 * shape["d_model"]),
               "act_fn": _SYNONYMS.get(str(act_fn), act_fn)}  # fmt: skip
    positions = given.get("positional_embedding_type", "standard")
    rotary = {name: given[name] for name in ROTARY if name in given and positions == "rotary"}
    if "rotary_base" in rotary:
        rotary["rotary_base"] = float(rotary["rotary_base"])  # a whole number in theirs
    return GPTConfig(
        **shape,
        **mlp,
        **rotary,
        n_heads=n_heads,
        normalization_type=norm,
        positional_embedding_type=positions,
        parallel_attn_mlp=given.get("parallel_attn_mlp", False),
        gated_mlp=given.get("gated_mlp", False),
        attn_scale=_scale(given, shape["d_head"]),
        attention_dir=given.get("attention_dir", "causal"),
        d_vocab_out=None if d_vocab_out == shape["d_vocab"] else d_vocab_out,
        eps=given.get("eps", 1e-5),
    )


def _check_known(fields: Mapping[str, Any]) -> None:
    known = (*_SHAPES, *_PARTS, *_ALWAYS, *_SILENT)
    for name in fields:
        if name not in known and not name.startswith(_SILENT_GROUPS):
            near = difflib.get_close_matches(name, known, 1)
            raise ValueError(
                f"{name}={fields[name]!r} is no field of HookedTransformerConfig"
                + (f"; did you mean {near[0]!r}?" if near else "")
            )
    for name in _SHAPES:
        value = fields.get(name)
        if type(value) is not int or value < (name != "n_layers"):
            got = repr(value) if name in fields else "nothing"
            raise ValueError(f"{name} must be a whole number, got {got}")


def _check_local(given: Mapping[str, Any], n_ctx: int) -> None:
    """ValueError for local attention, unless its window holds the whole context."""
    types, window = given.get("attn_types", ["local"]), given.get("window_size", 0)
    if not isinstance(types, list | tuple) or not isinstance(window, int):
        raise ValueError(
            f"attn_types must be a list and window_size a whole number, got {types!r}, {window!r}"
        )
    local = given.get("use_local_attn", False) and "local" in types
    if local and window < n_ctx:
        raise ValueError(
            f"use_local_attn=True cannot be expressed: with window_size={window} not every head "
            f"sees all of n_ctx={n_ctx} positions"
        )


def _scale(given: Mapping[str, Any], d_head: int) -> float | None:
    if not given.get("use_attn_scale", True):
        return 1.0
    usual = math.sqrt(d_head)
    scale = given.get("attn_scale", usual)
    return None if scale == usual else scale


def load_weights(model: GPT, weights: Mapping[str, Tensor]) -> None:
    """Copy weights by name into the model; ValueError unless each name and shape fits.

    TransformerLens's mask buffers in a HookedTransformer state dict are skipped.
    """
    weights = {k: v for k, v in weights.items() if not k.endswith((".attn.mask", ".attn.IGNORE"))}
    check_weights(model.cfg, weights, model.state_dict())
    model.load_state_dict(weights)


def check_weights(cfg: GPTConfig, weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """ValueError names a weight that is missing, unknown, of another shape, or not finite."""
    if wrong := misfit(cfg, own, weights):
        raise ValueError(f"the checkpoint does not fit the config: {wrong}")
    for name, weight in weights.items():
        _check_shape(name, weight, own[name].shape)
        if not weight.is_floating_point() or weight.is_meta or weight.layout != torch.strided:
            raise ValueError(
                f"{name} in the checkpoint is {weight.dtype}, {weight.layout} on {weight.device}: "
                f"expected plain floating-point numbers"
            )
        if not weight.to(own[name].dtype).isfinite().all():
            raise ValueError(f"{name} in the checkpoint holds a number that is not finite")
