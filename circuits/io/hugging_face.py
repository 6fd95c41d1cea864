"""Conversion of models and tokenizers of Hugging Face's transformers into a GPT.

transformers is imported only when it is needed. Each conversion is checked: both models read the
same tokens, and ValueError is raised if their logits differ.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from circuits.io.checkpoints import config_of, from_state_dict
from circuits.io.families import FAMILIES, Weights, fields_of, weights_of
from circuits.io.tokenizer_files import special_tokens
from circuits.model import GPT, GPTConfig, Vocabulary


def from_hugging_face(model: Any, tokenizer: Any = None) -> GPT:
    """A model of transformers as a GPT with copied weights and equal logits: GPT-2, GPT-Neo,
    GPT-NeoX (Pythia), GPT-J, and Llama, Mistral or Qwen 2 without grouped queries. `tokenizer` is
    its fast tokenizer; without it `bos` comes from the model's config.

    A local window must be as large as the context. ValueError names the field that a GPT cannot
    express.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if not hasattr(model, "config") or head is None:
        raise ValueError(f"need a model of transformers with lm_head, got {type(model).__name__}")
    cfg = read_config(model.config)
    weights = weights_of(FAMILIES[model.config.model_type], model.state_dict(), cfg)
    gpt = convert(cfg, weights, tokenizer, model.config.bos_token_id)
    check_equal(gpt, model, lambda tokens: model(tokens).logits)
    return gpt.train(model.training)


def from_hub(name: str, *, dtype: torch.dtype = torch.float32, revision: str | None = None) -> GPT:
    """A model with its tokenizer, from the Hugging Face Hub or a folder; in eval mode, on CPU.
    transformers loads it with the user's cache and network. `revision` is a version of it.

    Only safetensors are read. ValueError, before weights are fetched, for a model that a GPT cannot
    express; OSError if it cannot be fetched.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    at = {} if revision is None else {"revision": revision}
    read_config(AutoConfig.from_pretrained(name, **at))
    model = AutoModelForCausalLM.from_pretrained(
        name, use_safetensors=True, dtype=torch.float32, **at
    )
    return from_hugging_face(model.eval(), AutoTokenizer.from_pretrained(name, **at)).to(dtype)


def read_config(theirs: Any) -> GPTConfig:
    """The config of a model of transformers; ValueError names fields that a GPT cannot express."""
    if theirs.model_type not in FAMILIES:
        suspects = ("rope_parameters", "num_key_value_heads", "num_experts", "sliding_window")
        found = [f"{name}={value!r}" for name in suspects if (value := getattr(theirs, name, None))]
        raise ValueError(
            f"model_type={theirs.model_type!r} cannot be expressed"
            + (f", for its {', '.join(found)}" if found else "")
            + f"; there are {sorted(FAMILIES)}"
        )
    family = FAMILIES[theirs.model_type]
    return replace(config_of(fields_of(family, theirs)), bias=family.biased(theirs))


def convert(cfg: GPTConfig, weights: Weights, tokenizer: Any, bos: int | None) -> GPT:
    """A GPT with these weights, on their device and in their dtype. If a GPT cannot use the given
    tokenizer, a warning says so, and the GPT has no tokenizer. `bos` is its BOS then. A missing
    bias is 0."""
    speech = None
    try:
        speech = None if tokenizer is None else vocabulary(tokenizer, cfg.d_vocab)
    except ValueError as error:
        warnings.warn(f"the GPT has no tokenizer: {error}", stacklevel=3)
    W_E = weights["embed.W_E"]
    gpt = from_state_dict(cfg, weights, speech, dtype=W_E.dtype, zero_biases=True).to(W_E.device)
    if speech is None and bos is not None and 0 <= bos < cfg.d_vocab:
        gpt.bos = bos
    return gpt


def vocabulary(tokenizer: Any, d_vocab: int) -> Vocabulary:
    """A Vocabulary copied from a fast tokenizer of transformers, a Tokenizer of tokenizers, or a
    Vocabulary. BOS and EOS are those that it names, and <|endoftext|> if it names none. ValueError
    for another kind, for a tokenizer without these tokens, and for more than `d_vocab` tokens.
    """
    if isinstance(tokenizer, Vocabulary):
        fast = tokenizer.tokenizer
    else:
        fast = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(fast, Tokenizer) or fast.get_vocab_size() > d_vocab:
        raise ValueError(f"expected a fast tokenizer with at most {d_vocab} tokens, got "
                         f"{type(tokenizer).__name__}")  # fmt: skip
    names = {name: getattr(tokenizer, name, None) for name in ("bos_token", "eos_token")}
    return Vocabulary(Tokenizer.from_str(fast.to_str()), **special_tokens(names))


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
