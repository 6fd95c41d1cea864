"""Bad input to models, tokens, runs and hooks: what users see, without the type checker.

Run this file alone, also in a debugger: pytest -o addopts= tests/doors/bad_models.py.
The other tests run with jaxtyping and beartype on, which would refuse most of this first; so
test_doors.py starts a second pytest without them.
"""

import json

import torch
from tokenizers import Tokenizer

from circuits import GPT, algebra
from circuits.model import Vocabulary
from tests.doors.given import cfg, model, refused, talker, tokens


def test_a_config_refuses_fields_that_do_not_exist():
    with refused(TypeError, "no field 'n_layer'; did you mean 'n_layers'?"):
        cfg(n_layer=2)
    with refused(TypeError, "'attn_only'; leave d_mlp out"):
        cfg(attn_only=True)


def test_a_config_refuses_sizes_that_cannot_be():
    with refused(ValueError, "n_layers must be a whole number >= 0, got -1"):
        cfg(n_layers=-1)
    with refused(ValueError, "d_model must be a whole number >= 1, got 0"):
        cfg(d_model=0)
    with refused(ValueError, "d_head must be a whole number >= 1, got 2.5"):
        cfg(d_head=2.5)
    with refused(ValueError, "n_ctx must be a whole number >= 1, got True"):
        cfg(n_ctx=True)
    with refused(ValueError, "d_mlp must be a whole number >= 1, or None"):
        cfg(d_mlp=0, act_fn="relu")
    with refused(ValueError, "d_vocab_out must be a whole number >= 1, or None"):
        cfg(d_vocab_out=0)


def test_a_config_refuses_parts_that_would_do_nothing_or_are_not_there():
    with refused(ValueError, "act_fn=None is not supported; choose"):
        cfg(d_mlp=5)
    with refused(ValueError, "act_fn='relu' would do nothing: d_mlp is None"):
        cfg(act_fn="relu")
    with refused(ValueError, "act_fn='relu2' is not supported; choose"):
        cfg(d_mlp=5, act_fn="relu2")
    with refused(ValueError, "attention_dir='left' is not supported; choose"):
        cfg(attention_dir="left")
    with refused(ValueError, "normalization_type='BN' is not supported"):
        cfg(normalization_type="BN")
    with refused(ValueError, "'alibi' is not supported; choose"):
        cfg(positional_embedding_type="alibi")
    turned = GPT(cfg(positional_embedding_type="rotary", d_head=4))
    for offset in (0.5, [[1]], 16):
        with refused(ValueError, f"from 0 to {turned.cfg.n_ctx - 1}; got {offset}"):
            algebra.QK(turned, offset)
    with refused(ValueError, "sinusoid_base=9.0 would do nothing"):
        cfg(sinusoid_base=9.0)


def test_a_config_refuses_numbers_and_flags_that_cannot_be():
    with refused(ValueError, "bias must be True or False, got 'yes'"):
        cfg(bias="yes")
    with refused(ValueError, "attn_scale must be a number > 0, got 0.0"):
        cfg(attn_scale=0.0)
    with refused(ValueError, "eps must be a number > 0, got nan"):
        cfg(eps=float("nan"))


def test_a_mask_has_the_shape_of_the_tokens():
    with refused(ValueError, "attention_mask must be [1, 4], got [1, 5]"):
        model(tokens, attention_mask=torch.ones(1, 5))
    with refused(ValueError, "attention_mask must be [1, 4], got [1, 4, 1]"):
        model(tokens, attention_mask=torch.ones(1, 4, 1))
    with refused(ValueError, "padding_side='top'; choose left or right"):
        talker.to_padded_tokens(["a"], padding_side="top")
    with refused(TypeError, "'attention_maks'"):
        model(tokens, attention_maks=tokens)


def test_tokens_outside_of_the_vocabulary_are_named_with_their_place():
    with refused(
        ValueError, "token 29 at batch 0, position 1 is outside of the vocabulary: d_vocab=29"
    ):
        model(torch.tensor([[1, 29]]))
    with refused(ValueError, "token -1 at batch 0, position 1"):
        model(torch.tensor([[1, -1]]))


def test_tokens_of_another_shape_or_type_are_refused():
    with refused(ValueError, "18 tokens are 2 more than the context of n_ctx=16"):
        model(torch.zeros(1, 18, dtype=torch.long))
    with refused(ValueError, "not empty, got [1, 0]"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with refused(ValueError, "got [1, 2, 3]"):
        model(torch.zeros(1, 2, 3, dtype=torch.long))
    with refused(ValueError, "tokens must be integers, got torch.float32"):
        model(torch.zeros(1, 2))


def test_text_needs_a_tokenizer_and_one_length():
    with refused(ValueError, "no tokenizer: give it tokens"):
        model("text")
    with refused(ValueError, "one common length"):
        talker.to_tokens(["one", "one two"])
    with refused(ValueError, "'one two' is "):
        talker.to_single_token("one two")


def test_a_tokenizer_without_the_special_token_is_refused():
    bpe = {"type": "BPE", "vocab": {}, "merges": []}
    parts = ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    bare = {"version": "1.0", "added_tokens": [], "model": bpe, **dict.fromkeys(parts)}
    with refused(ValueError, "no '<|endoftext|>' token"):
        Vocabulary(Tokenizer.from_str(json.dumps(bare)))


def test_a_run_refuses_arguments_that_it_does_not_know():
    with refused(ValueError, "return_type='logit'; choose logits, loss, both"):
        model(tokens, "logit")
    with refused(TypeError, "attention_maks"):
        model(tokens, attention_maks=None)
    with refused(TypeError, "stop_at_layr"):
        model.run_with_cache(tokens, stop_at_layr=1)


def test_a_run_starts_and_stops_at_layers_that_exist():
    with refused(ValueError, "layer 3 does not exist: the model has 2"):
        model(tokens, stop_at_layer=3)
    with refused(ValueError, "needs a stream [batch pos 12], got [1, 4]"):
        model(tokens, start_at_layer=1)
    with refused(ValueError, "are 2 more than"):
        model(torch.zeros(1, 18, 12), start_at_layer=1)
    with refused(ValueError, "cannot start at layer 2 and stop before layer 1"):
        model(torch.zeros(1, 4, 12), start_at_layer=2, stop_at_layer=1)


def test_a_loss_needs_logits_and_two_tokens():
    with refused(ValueError, "a loss needs return_type='loss'"):
        model(tokens, "loss", stop_at_layer=1)
    with refused(ValueError, "a loss needs return_type='loss'"):
        model(tokens, loss_per_token=True)
    with refused(ValueError, "the loss needs at least two tokens"):
        model(tokens[:, :1], "loss")


def test_weights_that_a_model_lacks_are_refused():
    with refused(ValueError, "attention-only: it has no W_in"):
        _ = model.W_in
    with refused(ValueError, "has no positions"):
        _ = GPT(cfg(positional_embedding_type="none")).W_pos


def test_hook_names_that_match_nothing_are_refused_with_the_nearest():
    with refused(
        KeyError,
        "no hook point matches 'blocks.0.attn.hook_paterm'; the nearest are "
        "['blocks.0.attn.hook_pat",
    ):
        model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_paterm", print)])
    with refused(KeyError, "matches 'blocks.9.*'"):
        model.run_with_cache(tokens, names_filter="blocks.9.*")
    with refused(KeyError, "it is kept only when named"):
        model.run_with_cache(tokens)[1]["result", 0]


def test_a_hook_returns_a_tensor_of_the_same_shape():
    with refused(TypeError, "the hook on 'hook_embed' returned float"):
        model.run_with_hooks(tokens, fwd_hooks=[("embed", lambda x, hook: 1.0)])
    with refused(ValueError, "returned shape [4, 12]; the activation is [1, 4, 12]"):
        model.run_with_hooks(tokens, fwd_hooks=[("embed", lambda x, hook: x[0])])


def test_a_hook_that_is_never_called_is_an_error():
    with refused(ValueError, "a hook was never called: the run did not reach"):
        model.run_with_hooks(
            tokens, stop_at_layer=1, fwd_hooks=[("blocks.1.hook_resid_pre", lambda x, hook: x)]
        )
    with refused(ValueError, "a hook was never called"):
        model.run_with_hooks(tokens, fwd_hooks=[(lambda name: False, print)])
    with refused(ValueError, "dir must be one of ['fwd', 'bwd']"):
        model.add_hook("embed", print, "forward")
