"""Conversion of models of TransformerLens into a GPT, and of a GPT into a TransformerBridge.

Only this file imports transformer_lens, and only when it is needed. hugging_face.py imports
transformers. Each conversion is checked: both models read the same tokens, and ValueError is raised
if their logits differ.
"""

from typing import Any

import torch
from tokenizers import Tokenizer

from circuits.hooks import Cache
from circuits.io.checkpoints import config_of
from circuits.io.families import Weights
from circuits.io.hugging_face import (
    check_equal,
    convert,
    from_hub,
    from_hugging_face,
    read_config,
)
from circuits.model import GPT, GPTConfig, Vocabulary, is_bias

__all__ = ["activation_cache", "from_hub", "from_hugging_face", "from_transformer_lens",
           "to_transformer_lens"]  # fmt: skip


def from_transformer_lens(model: Any) -> GPT:
    """A `TransformerBridge`, or a `HookedTransformer` of releases before 4, as a GPT with copied
    weights and equal logits and activations.

    The bridge must be native or hold a model that `from_hugging_face` takes. Processed weights
    (compatibility mode) stay processed. ValueError names the field that a GPT cannot express.
    """
    if isinstance(model, GPT) or not hasattr(model, "cfg"):
        raise ValueError(f"expected a TransformerBridge, got {type(model).__name__}")
    if hasattr(model, "original_model"):
        cfg, weights = _of_bridge(model)
    else:
        cfg, weights = config_of(vars(model.cfg)), model.state_dict()
    wrapped = getattr(getattr(model, "original_model", None), "config", None)
    gpt = convert(cfg, weights, model.tokenizer, getattr(wrapped, "bos_token_id", None))
    check_equal(gpt, model, model)
    return gpt.train(model.training)


def _of_bridge(model: Any) -> tuple[GPTConfig, Weights]:
    wrapped = getattr(model.original_model, "config", None)  # a native model has none
    if wrapped is not None:
        cfg = read_config(wrapped)  # the bridge's own config lacks GPT-Neo's scale of 1
    else:
        fields = dict(vars(model.cfg))
        if not fields.get("use_attn_scale", True):  # a native model divides by sqrt(d_head) anyway
            fields |= {"use_attn_scale": True, "attn_scale": -1.0}
        if fields.get("positional_embedding_type") == "rotary":  # whatever its config says
            fields["rotary_adjacent_pairs"] = True
        cfg = config_of(fields)
    weights = _parameters(model)
    if cfg.attn_only:  # an attention-only bridge has MLPs of zeros
        weights = {name: weight for name, weight in weights.items() if ".mlp." not in name}
    if cfg.parallel_attn_mlp:  # one norm that heads and MLP share is two equal norms here
        shared = {name.replace(".ln1.", ".ln2."): w for name, w in weights.items()
                  if ".ln1." in name}  # fmt: skip
        weights = {**shared, **weights}
    biases = [name for name in weights if is_bias(name)]
    if not (cfg.bias or any(weights[name].any() for name in biases)):  # all bridges have biases
        weights = {name: w for name, w in weights.items() if name not in biases}
    return cfg, weights


def to_transformer_lens(gpt: GPT) -> Any:
    """A GPT as a native `TransformerBridge` with copied weights and equal logits.

    Sinusoids become learned positions. Absent positions and biases become zeros. ValueError for
    features that a native bridge lacks: shortformer positions, smeared keys, zero layers,
    attn_scale=1, parallel blocks; and for gated MLPs and rotary positions, which are not converted.
    """
    cfg = gpt.cfg
    lacking = {
        "positional_embedding_type": cfg.shortformer or cfg.rotary,
        "parallel_attn_mlp": cfg.parallel_attn_mlp,
        "gated_mlp": cfg.gated_mlp,
        "smeared_keys": cfg.smeared_keys,
        "n_layers": cfg.n_layers == 0,
        "attn_scale": cfg.attn_scale == 1 and cfg.d_head > 1,
    }
    for field, lacks in lacking.items():
        if lacks:
            raise ValueError(
                f"{field}={getattr(cfg, field)!r} cannot be expressed by a native TransformerBridge"
            )
    bridge = _native_bridge(gpt)
    weights = dict(gpt.state_dict())
    if cfg.embeds_positions:
        weights["pos_embed.W_pos"] = gpt.W_pos
    with torch.no_grad():
        for name, weight in _parameters(bridge).items():  # views of its own weights
            weight.copy_(weights[name]) if name in weights else weight.zero_()
    check_equal(gpt, bridge, bridge)
    return bridge.train(gpt.training)


def _parameters(bridge: Any) -> Weights:
    """The bridge's weights by a GPT's names, as views. `tl_parameters` lacks the norms of
    solu_ln."""
    weights = dict(bridge.tl_parameters())
    for layer, block in enumerate(bridge.blocks):
        norm = getattr(getattr(block, "mlp", None), "ln", None)
        if norm is not None and bridge.cfg.normalization_type == "LN":
            weights |= {f"blocks.{layer}.mlp.ln.w": norm.weight.data,
                        f"blocks.{layer}.mlp.ln.b": norm.bias.data}  # fmt: skip
    return weights


def activation_cache(cache: Cache, model: GPT, *, has_batch_dim: bool = True) -> Any:
    """A Cache as TransformerLens's ActivationCache, whose decompositions read the weights of
    `model`; it holds the same tensors, without copies.

    Shortformer positions are left out: TransformerLens would count them as a part of the residual
    stream. For the same reason a run keeps them under another name by default.
    """
    from transformer_lens import ActivationCache

    kept = dict(cache)
    if model.cfg.shortformer:
        kept.pop("hook_pos_embed", None)
    return ActivationCache(kept, model, has_batch_dim=has_batch_dim)  # type: ignore[arg-type]


def _native_bridge(gpt: GPT) -> Any:
    import transformer_lens.model_bridge.sources  # noqa: F401  registers boot_native
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    shared = ("n_layers", "d_model", "n_heads", "d_head", "d_vocab", "n_ctx", "d_mlp", "attn_only",
              "normalization_type", "eps", "attention_dir")  # fmt: skip
    cfg = TransformerBridgeConfig(
        **{name: getattr(gpt.cfg, name) for name in shared},
        act_fn=gpt.cfg.act_fn or "gelu",
        d_vocab_out=gpt.W_U.shape[1],
        attn_scale=gpt.cfg.attn_scale or -1.0,
        init_weights=False,
    )
    tokenizer = None if gpt.tokenizer is None else _fast_tokenizer(gpt.tokenizer)
    where = {"device": gpt.W_E.device, "dtype": gpt.W_E.dtype}
    return TransformerBridge.boot_native(cfg, tokenizer=tokenizer, **where)  # type: ignore[attr-defined]


def _fast_tokenizer(vocabulary: Vocabulary) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(vocabulary.tokenizer.to_str()),
        bos_token=vocabulary.bos_token,
        eos_token=vocabulary.eos_token,
        pad_token=vocabulary.bos_token,
        add_bos_token=True,  # else TransformerLens reads it again, from the name
        name_or_path="",
    )
