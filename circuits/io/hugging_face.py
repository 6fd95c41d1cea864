"""Conversion of models and tokenizers of Hugging Face's transformers into a GPT.

transformers is imported only when it is needed. Each conversion is checked: both models read the
same tokens, and ValueError is raised if their logits differ.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from circuits.io.checkpoints import config_of, from_state_dict
from circuits.model import BOS, GPT, GPTConfig, Vocabulary

Weights = dict[str, Tensor]


def from_hugging_face(model: Any, tokenizer: Any = None) -> GPT:
    """A GPT2LMHeadModel or GPTNeoForCausalLM of transformers as a GPT with copied weights and equal
    logits. `tokenizer` is its fast tokenizer; without it `bos` comes from the model's config.

    A GPT-Neo needs a local window as large as the context. ValueError names the field that a GPT
    cannot express.
    """
    if not hasattr(model, "config") or not hasattr(model, "lm_head"):
        raise ValueError(f"need a model of transformers with lm_head, got {type(model).__name__}")
    cfg = read_config(model.config)
    gpt = convert(cfg, _weights(model, cfg), tokenizer, model.config.bos_token_id)
    check_equal(gpt, model, lambda tokens: model(tokens).logits)
    return gpt.train(model.training)


def from_hub(name: str, *, dtype: torch.dtype = torch.float32) -> GPT:
    """A GPT-2 or GPT-Neo model with its tokenizer, from the Hugging Face Hub or a folder; in eval
    mode, on CPU. transformers loads it with the user's cache and network.

    Only safetensors are read. ValueError, before weights are fetched, for a model that a GPT cannot
    express; OSError if it cannot be fetched.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    read_config(AutoConfig.from_pretrained(name))
    model = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    return from_hugging_face(model.eval(), AutoTokenizer.from_pretrained(name)).to(dtype)


class Family(NamedTuple):
    """The functions that read one architecture of transformers."""

    fields: Callable[[Any], dict[str, Any]]
    "The model's config -> the fields of a HookedTransformerConfig."
    attention: Callable[[Weights], Weights]
    "The tensors of a block -> W_Q ... b_O with all heads side by side; matrices are [in out]."
    linear: bool
    "True if MLP matrices are [out in], False if they are [in out]."


def _gpt2_fields(theirs: Any) -> dict[str, Any]:
    return {
        "n_layers": theirs.n_layer,
        "d_model": theirs.n_embd,
        "d_head": theirs.n_embd // theirs.n_head,
        "n_ctx": theirs.n_positions,
        "d_mlp": theirs.n_inner,
        "use_attn_scale": theirs.scale_attn_weights,
        "scale_attn_by_inverse_layer_idx": theirs.scale_attn_by_inverse_layer_idx,
    }


def _gpt_neo_fields(theirs: Any) -> dict[str, Any]:
    return {
        "n_layers": theirs.num_layers,
        "d_model": theirs.hidden_size,
        "d_head": theirs.hidden_size // theirs.num_heads,
        "n_ctx": theirs.max_position_embeddings,
        "d_mlp": theirs.intermediate_size,
        "use_attn_scale": False,
        "use_local_attn": True,
        "attn_types": theirs.attention_layers,
        "window_size": theirs.window_size,
    }


def _gpt2_attention(w: Weights) -> Weights:
    matrices, biases = w["attn.c_attn.weight"].chunk(3, 1), w["attn.c_attn.bias"].chunk(3)
    ours = {"W_O": w["attn.c_proj.weight"], "b_O": w["attn.c_proj.bias"]}
    for letter, matrix, bias in zip("QKV", matrices, biases, strict=True):
        ours |= {f"W_{letter}": matrix, f"b_{letter}": bias}
    return ours


def _gpt_neo_attention(w: Weights) -> Weights:
    ours = {"W_O": w["attn.attention.out_proj.weight"].T, "b_O": w["attn.attention.out_proj.bias"]}
    for letter in "QKV":
        matrix = w[f"attn.attention.{letter.lower()}_proj.weight"].T
        ours |= {f"W_{letter}": matrix, f"b_{letter}": matrix.new_zeros(matrix.shape[1])}
    return ours


FAMILIES = {
    "gpt2": Family(_gpt2_fields, _gpt2_attention, linear=False),
    "gpt_neo": Family(_gpt_neo_fields, _gpt_neo_attention, linear=True),
}
"The architectures by transformers' model_type."


def read_config(theirs: Any) -> GPTConfig:
    """The config of a model of transformers; ValueError names fields that a GPT cannot express."""
    if theirs.model_type not in FAMILIES:
        suspects = ("rope_parameters", "rotary_dim", "use_parallel_residual", "num_key_value_heads")
        found = [f"{name}={value!r}" for name in suspects if (value := getattr(theirs, name, None))]
        raise ValueError(
            f"model_type={theirs.model_type!r} cannot be expressed"
            + (f", for its {', '.join(found)}" if found else "")
            + f"; there are {sorted(FAMILIES)}"
        )
    return config_of({
        **FAMILIES[theirs.model_type].fields(theirs),
        "d_vocab": theirs.vocab_size,
        "act_fn": theirs.activation_function,
        "eps": theirs.layer_norm_epsilon,
    })  # fmt: skip


def _weights(model: Any, cfg: GPTConfig) -> Weights:
    """The weights of a model of transformers under a GPT's names."""
    family, theirs = FAMILIES[model.config.model_type], model.state_dict()
    W_U = theirs["lm_head.weight"].T
    ours = {
        "embed.W_E": theirs["transformer.wte.weight"],
        "pos_embed.W_pos": theirs["transformer.wpe.weight"],
        "ln_final.w": theirs["transformer.ln_f.weight"],
        "ln_final.b": theirs["transformer.ln_f.bias"],
        "unembed.W_U": W_U,
        "unembed.b_U": W_U.new_zeros(cfg.d_vocab),
    }
    for layer in range(cfg.n_layers):
        place = f"transformer.h.{layer}."
        w = {k.removeprefix(place): v for k, v in theirs.items() if k.startswith(place)}
        block = {}
        for name, weight in family.attention(w).items():
            block[f"attn.{name}"] = _by_head(name, weight, cfg)
        for mine, name in {"ln1": "ln_1", "ln2": "ln_2"}.items():
            block |= {f"{mine}.w": w[f"{name}.weight"], f"{mine}.b": w[f"{name}.bias"]}
        for mine, name in {"in": "mlp.c_fc", "out": "mlp.c_proj"}.items():
            W = w[f"{name}.weight"]
            block |= {f"mlp.W_{mine}": W.T if family.linear else W}
            block |= {f"mlp.b_{mine}": w[f"{name}.bias"]}
        ours |= {f"blocks.{layer}.{name}": weight for name, weight in block.items()}
    return ours


def _by_head(name: str, weight: Tensor, cfg: GPTConfig) -> Tensor:
    """A weight of all heads -> [head d_model d_head], [head d_head d_model] or [head d_head]."""
    if name == "b_O":
        return weight
    if name in ("W_Q", "W_K", "W_V"):
        return weight.unflatten(1, (cfg.n_heads, cfg.d_head)).transpose(0, 1)
    return weight.unflatten(0, (cfg.n_heads, cfg.d_head))


def convert(cfg: GPTConfig, weights: Weights, tokenizer: Any, bos: int | None) -> GPT:
    """A GPT with these weights, on their device and in their dtype. If a GPT cannot use the given
    tokenizer, a warning says so, and the GPT has no tokenizer. `bos` is its BOS then."""
    speech = None
    try:
        speech = None if tokenizer is None else vocabulary(tokenizer, cfg.d_vocab)
    except ValueError as error:
        warnings.warn(f"the GPT has no tokenizer: {error}", stacklevel=3)
    W_E = weights["embed.W_E"]
    gpt = from_state_dict(cfg, weights, speech, dtype=W_E.dtype).to(W_E.device)
    if speech is None and bos is not None and 0 <= bos < cfg.d_vocab:
        gpt.bos = bos
    return gpt


def vocabulary(tokenizer: Any, d_vocab: int) -> Vocabulary:
    """A Vocabulary copied from a fast tokenizer of transformers, a Tokenizer of tokenizers, or a
    Vocabulary. ValueError for another kind, for a tokenizer without <|endoftext|>, and for more
    than `d_vocab` tokens.
    """
    if isinstance(tokenizer, Vocabulary):
        fast = tokenizer.tokenizer
    else:
        fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    known = isinstance(fast, Tokenizer)
    if not known or fast.token_to_id(BOS) is None or fast.get_vocab_size() > d_vocab:
        raise ValueError(f"expected a fast tokenizer with {BOS} and at most {d_vocab} tokens, got "
                         f"{type(tokenizer).__name__}")  # fmt: skip
    return Vocabulary(Tokenizer.from_str(fast.to_str()))


def vocabulary_by_name(name: str, d_vocab: int) -> Vocabulary:
    """The vocabulary of a model on the Hugging Face Hub or in a folder. transformers loads it with
    the user's cache and network. OSError if it cannot be fetched; ValueError as in `vocabulary`."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise OSError(
            f"the tokenizer {name!r} could not be fetched from the Hugging Face Hub: "
            f"give the model a tokenizer of your own, or give it tokens instead of text"
        ) from error
    return vocabulary(tokenizer, d_vocab)


@torch.no_grad()
def check_equal(gpt: GPT, other: Any, logits_of: Callable[[Tensor], Tensor]) -> None:
    """ValueError unless both models give equal logits for a test batch, up to rounding."""
    spread = torch.arange(min(gpt.cfg.n_ctx, 16), device=gpt.W_E.device) * 7919
    tokens, training = spread[None] % gpt.cfg.d_vocab, other.training
    other.eval()
    theirs = logits_of(tokens).float()
    other.train(training)
    miss = (gpt(tokens).float() - theirs).abs().max().item()
    tolerance = max(1e-3, 10 * torch.finfo(gpt.W_E.dtype).eps)
    if not miss <= tolerance * max(1.0, theirs.abs().max().item()):
        raise ValueError(
            f"the logits of the two models differ by {miss:.2g}: the other model has hooks, or "
            f"computes something that its config does not name"
        )
