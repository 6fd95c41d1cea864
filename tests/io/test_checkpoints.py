"""HookedTransformer's configs and state dicts: read strictly, hostile ones refused, none run."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from circuits import GPTConfig
from circuits.io import config_of, from_state_dict
from tests.conftest import ROTARY, TINY, tiny, tiny_tokens

THEIRS = {
    **TINY, "model_name": "toy", "act_fn": "gelu", "eps": 1e-5, "use_attn_result": True,
    "use_attn_scale": True, "attn_scale": 5**0.5, "use_local_attn": False, "window_size": None,
    "attn_only": True, "d_mlp": 48, "normalization_type": "LN", "device": "cuda", "seed": 7,
    "attention_dir": "causal", "init_mode": "gpt2", "initializer_range": 0.2, "d_vocab_out": 29,
    "positional_embedding_type": "shortformer", "final_rms": False, "parallel_attn_mlp": False,
    "gated_mlp": False, "dtype": torch.float32, "n_key_value_heads": None, "rotary_dim": None,
    "attn_scores_soft_cap": -1.0, "default_prepend_bos": True, "tokenizer_name": None,
}  # fmt: skip
"A config as HookedTransformerConfig.to_dict() gives it, of an attention-only shortformer."
SHAPE = {name: THEIRS[name] for name in ("n_layers", "d_model", "n_ctx", "d_head", "d_vocab")}


def checkpoint(model) -> dict:
    """A HookedTransformer state dict: our parameters, and the buffers of its attention."""
    masks = {f"blocks.{layer}.attn.mask": torch.ones(16, 16).tril().bool() for layer in range(2)}
    return {**model.state_dict(), **masks, "blocks.0.attn.IGNORE": torch.tensor(-torch.inf)}


@pytest.mark.parametrize("kind", ["mapping", "model.pth", "model.safetensors"])
def test_a_hooked_transformer_checkpoint_becomes_the_gpt_it_was(kind, tmp_path):
    model = tiny(normalization_type="LN", positional_embedding_type="shortformer")
    weights = checkpoint(model)
    if kind == "model.pth":
        torch.save(weights, tmp_path / kind)
    elif kind == "model.safetensors":
        save_file({name: weight.contiguous() for name, weight in weights.items()}, tmp_path / kind)
    source = weights if kind == "mapping" else tmp_path / kind
    again = from_state_dict(THEIRS, source, dtype=torch.float64)
    assert again.cfg == model.cfg and not again.training
    assert again(tiny_tokens()).equal(model(tiny_tokens()))
    assert from_state_dict(model.cfg, source).W_E.dtype == torch.float32


@pytest.mark.parametrize(("fields", "ours"), [
    ({}, {"d_mlp": 48, "act_fn": "relu", "n_heads": 2}),
    ({"d_mlp": 9, "act_fn": "swish"}, {"d_mlp": 9, "act_fn": "silu"}),
    ({"use_attn_scale": False}, {"attn_scale": 1.0}), ({"attn_scale": 4.0}, {"attn_scale": 4.0}),
    ({"attn_scale": 5**0.5}, {"attn_scale": None}), ({"n_heads": 4}, {"n_heads": 4}),
    ({"normalization_type": None}, {"normalization_type": None}),
    ({"normalization_type": "RMS", "final_rms": True}, {"normalization_type": "RMS"}),
    ({"use_local_attn": True, "window_size": 16}, {}),
    ({"use_local_attn": True, "window_size": 2, "attn_types": ["global", "global"]}, {}),
    ({"attention_dir": "bidirectional", "d_vocab_out": 3, "act_fn": "solu_ln"},
     {"attention_dir": "bidirectional", "d_vocab_out": 3, "act_fn": "solu_ln"}),
    ({"positional_embedding_type": "rotary", "rotary_dim": 4, "rotary_base": 500},
     {"rotary_base": 500.0, "rotary_dim": 4, "parallel_attn_mlp": False}),
    ({"parallel_attn_mlp": True}, {"parallel_attn_mlp": True, "gated_mlp": False}),
    ({"gated_mlp": True}, {"parallel_attn_mlp": False, "gated_mlp": True}),
    ({"rotary_dim": None, "rotary_base": 10000, "rotary_adjacent_pairs": False},
     {"rotary_base": None, "rotary_adjacent_pairs": False}),  # theirs say it of all models
    ({"d_vocab_out": 29}, {"d_vocab_out": None, "attention_dir": "causal"}),
    ({"attn_only": True}, {"d_mlp": None, "act_fn": None})])  # fmt: skip
def test_its_fields_become_ours(fields, ours):
    cfg = config_of({**SHAPE, "act_fn": "relu", **fields})
    assert isinstance(cfg, GPTConfig) and {name: getattr(cfg, name) for name in ours} == ours


@pytest.mark.parametrize(("fields", "message"), [
    ({"use_qk_norm": True}, "use_qk_norm=True cannot be expressed: in a GPT it is always False"),
    ({"positional_embedding_type": "alibi"}, "positional_embedding_type='alibi' is not supp"),
    ({"positional_embedding_type": "rotary", "rotary_dim": 4, "use_yarn_rope": True},
     "use_yarn_rope=True cannot be expressed"),
    ({"use_local_attn": True, "window_size": 4}, "use_local_attn=True cannot be expressed"),
    ({"use_local_attn": True}, "use_local_attn=True cannot be expressed"),
    ({"num_experts": 4}, "num_experts=4"), ({"act_fn": "relu2"}, "act_fn='relu2' is not supp"),
    ({"d_vocab_out": 0}, "d_vocab_out must be a whole number >= 1"),
    ({"attention_dir": "both"}, "attention_dir='both' is not supported; choose"),
    ({"n_layer": 3}, "n_layer=3 is no field of HookedTransformerConfig; did you mean 'n_layers'"),
    ({"d_head": None}, "d_head must be a whole number, got None"),
    ({"d_head": 0}, "d_head must be a whole number, got 0"),
    ({"d_model": "wide"}, "d_model must be a whole number, got 'wide'")])  # fmt: skip
def test_what_a_gpt_cannot_express_is_refused_by_field(fields, message):
    with pytest.raises(ValueError) as refused:
        config_of({**SHAPE, "act_fn": "relu", **fields})
    assert message in str(refused.value)


@pytest.mark.filterwarnings("ignore:Validating sparse")  # torch 2.15 says how long it takes
@pytest.mark.parametrize(("weight", "message"), [
    (torch.ones(29, 11), r"embed.W_E is \[29, 11\] in the checkpoint, but \[29, 12\]"),
    (torch.ones(1, 1).expand(10**8, 10**8), r"embed.W_E is \[100000000, 100000000\]"),
    (torch.full((29, 12), torch.nan), "embed.W_E in the checkpoint holds a number that is not fin"),
    (torch.ones(29, 12, dtype=torch.long), "embed.W_E in the checkpoint is torch.int64"),
    (torch.ones(29, 12).to_sparse(), "embed.W_E in the checkpoint is torch.float32, torch.sparse"),
    (torch.ones(29, 12, device="meta"), "on meta: expected plain floating-point numbers"),
    (None, r"lacks \['embed.W_E'\]")])  # fmt: skip
def test_a_tensor_that_does_not_fit_is_refused_by_name(weight, message, tmp_path):
    weights = {**tiny().state_dict(), "embed.W_E": weight}
    if weight is None:
        del weights["embed.W_E"]
    torch.save(weights, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=message):
        from_state_dict(tiny().cfg, tmp_path / "model.pth")


def named(weights: dict, *prefixes: str) -> dict:
    return {"".join(prefixes) + name: weight for name, weight in weights.items()}


@pytest.mark.parametrize("prefixes", [("_orig_mod.",), ("module.",), ("module.", "_orig_mod."),
                                      ("_orig_mod.", "module.")])  # fmt: skip
def test_prefixes_of_wrappers_are_taken_off_or_named(prefixes):
    model = tiny()
    again = from_state_dict(model.cfg, named(model.state_dict(), *prefixes), dtype=torch.float64)
    assert again(tiny_tokens()).equal(model(tiny_tokens()))
    with pytest.raises(RuntimeError, match=r"of torch\.compile or DistributedDataParallel: remove"):
        again.load_state_dict(named(model.state_dict(), *prefixes))


def test_a_block_that_was_compiled_alone_loads_too():
    model = tiny()
    weights = {name.replace("blocks.1.", "blocks.1._orig_mod."): weight
               for name, weight in model.state_dict().items()}  # fmt: skip
    assert from_state_dict(model.cfg, weights, dtype=torch.float64)(tiny_tokens()).equal(
        model(tiny_tokens())
    )


def test_biases_of_mlps_alone_load_where_the_others_are_said_to_be_zero():
    model = tiny(d_mlp=7, act_fn="relu", normalization_type=None)
    absent = [name for name in model.state_dict() if ".b_" in name and ".mlp." not in name]
    with torch.no_grad():
        for name in absent:
            model.get_parameter(name).zero_()
    weights = {name: w for name, w in model.state_dict().items() if name not in absent}
    again = from_state_dict(model.cfg, weights, dtype=torch.float64, zero_biases=True)
    assert again(tiny_tokens()).equal(model(tiny_tokens()))
    for bias in (True, False):
        with pytest.raises(ValueError, match=r"from_state_dict\(..., zero_biases=True\)"):
            from_state_dict(replace(model.cfg, bias=bias), weights)
    lacking = {name: weight for name, weight in weights.items() if "W_in" not in name}
    with pytest.raises(ValueError, match=r"blocks\.0\.mlp\.W_in"):
        from_state_dict(model.cfg, lacking, zero_biases=True)


FOLDED = {"normalization_type": "LNPre"}
REASONS = [
    (FOLDED, {"normalization_type": "LN"}, "the config needs normalization_type='LNPre'"),
    ({"normalization_type": "RMSPre"}, {"normalization_type": "RMS"}, "type='RMSPre'"),
    ({"bias": False}, {"bias": True}, "it has no biases: the config needs bias=False"),
    ({"bias": True}, {"bias": False}, "it has biases: the config needs bias=True"),
]


@pytest.mark.parametrize(("held", "wanted", "words"), REASONS)
def test_names_that_do_not_fit_are_refused_with_the_reason_and_what_to_do(held, wanted, words):
    weights, model = tiny(**held).state_dict(), tiny(**{**held, **wanted})
    with pytest.raises(ValueError, match=words) as refused:
        from_state_dict(model.cfg, weights)
    assert "[]" not in str(refused.value)
    with pytest.raises(RuntimeError, match=words):
        model.load_state_dict(weights)


def test_surplus_tensors_are_named_and_nothing_else():
    weights = {**tiny().state_dict(), "x_embed": torch.ones(2)}
    with pytest.raises(ValueError, match=r"config: the model has no \['x_embed'\]; remove the"):
        from_state_dict(tiny().cfg, weights)


def test_a_table_of_angles_that_no_checkpoint_fills_is_refused_before_it_is_made():
    model = tiny(**ROTARY[0])
    fields = {**vars(model.cfg), "n_ctx": 10**13}
    with pytest.raises(ValueError, match=r"n_ctx=10000000000000 rotary positions .* more numbers"):
        from_state_dict(GPTConfig(**fields), model.state_dict())
