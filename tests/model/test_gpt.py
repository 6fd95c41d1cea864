"""The model against Hugging Face, TransformerLens and its own laws."""

import copy
import pickle

import pytest
import torch

from circuits.io import load_weights
from tests.conftest import TINY, tiny, tiny_tokens

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def close(a, b, dtype):
    return torch.allclose(a, b, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def gpt2_weights(hf, n_heads):
    """Hugging Face GPT-2 weights under our names and shapes."""
    w, ours = hf.state_dict(), {}
    ours["embed.W_E"], ours["pos_embed.W_pos"] = (
        w["transformer.wte.weight"],
        w["transformer.wpe.weight"],
    )
    for i in range(hf.config.n_layer):
        their, block = f"transformer.h.{i}", f"blocks.{i}"
        q, k, v = w[f"{their}.attn.c_attn.weight"].chunk(3, dim=1)
        b = w[f"{their}.attn.c_attn.bias"].chunk(3)
        for letter, weight, bias in zip("QKV", (q, k, v), b, strict=True):
            ours[f"{block}.attn.W_{letter}"] = weight.unflatten(1, (n_heads, -1)).permute(1, 0, 2)
            ours[f"{block}.attn.b_{letter}"] = bias.unflatten(0, (n_heads, -1))
        ours[f"{block}.attn.W_O"] = w[f"{their}.attn.c_proj.weight"].unflatten(0, (n_heads, -1))
        ours[f"{block}.attn.b_O"] = w[f"{their}.attn.c_proj.bias"]
        for norm, name in (("ln1", "ln_1"), ("ln2", "ln_2")):
            ours[f"{block}.{norm}.w"] = w[f"{their}.{name}.weight"]
            ours[f"{block}.{norm}.b"] = w[f"{their}.{name}.bias"]
        for letter, name in (("in", "c_fc"), ("out", "c_proj")):
            ours[f"{block}.mlp.W_{letter}"] = w[f"{their}.mlp.{name}.weight"]
            ours[f"{block}.mlp.b_{letter}"] = w[f"{their}.mlp.{name}.bias"]
    ours["ln_final.w"], ours["ln_final.b"] = (
        w["transformer.ln_f.weight"],
        w["transformer.ln_f.bias"],
    )
    ours["unembed.W_U"] = w["lm_head.weight"].T
    ours["unembed.b_U"] = torch.zeros(len(w["lm_head.weight"]))
    return ours


@DTYPES
def test_logits_are_those_of_hugging_face_gpt2(dtype):
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 3, "n_embd": 15, "vocab_size": 29, "n_positions": 16}
    hf = GPT2LMHeadModel(GPT2Config(**shape)).to(dtype).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model = tiny(dtype=dtype, d_model=15, d_mlp=60, act_fn="gelu_new")
    load_weights(model, gpt2_weights(hf, 3))
    tokens = tiny_tokens()
    assert close(model(tokens), hf(tokens).logits, dtype)
    loss = torch.stack([hf(row[None], labels=row[None]).loss for row in tokens]).mean()
    assert close(
        model(tokens, return_type="loss").float(), loss, torch.float32
    )  # theirs is float32


def native_bridge(dtype, **fields):
    """A TransformerLens native model with random weights, and ours with the same ones."""
    import transformer_lens.model_bridge.sources  # noqa: F401  registers boot_native
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    torch.manual_seed(0)
    shape = {**TINY, **fields}
    attn_only = shape.get("d_mlp") is None
    bridge = TransformerBridge.boot_native(
        TransformerBridgeConfig(
            **{**shape, "act_fn": shape.get("act_fn", "gelu")}, attn_only=attn_only
        )
    )
    with torch.no_grad():
        for parameter in bridge.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    bridge = bridge.to(dtype).eval()
    model = tiny(dtype=dtype, **fields)
    weights = {}
    for name in model.state_dict():
        weights[name] = _bridge_weight(bridge, name)
    load_weights(model, weights)
    return bridge, model


def _bridge_weight(bridge, name):
    """The tensor that our parameter `name` is in a native bridge."""
    place, _, leaf = name.rpartition(".")
    if place in ("embed", "pos_embed", "unembed"):
        return getattr(getattr(bridge, place), leaf).detach()
    if place == "ln_final" or place.endswith(("ln1", "ln2")):
        module = bridge.ln_final if place == "ln_final" else getattr(
            bridge.blocks[int(place.split(".")[1])], place.split(".")[2])  # fmt: skip
        original = module._modules["_original_component"]
        return (original.weight if leaf == "w" else original.bias).detach()
    return getattr(bridge, leaf)[int(place.split(".")[1])].detach()


BRIDGES = [
    {"normalization_type": None},
    {"normalization_type": "LN"},
    {"normalization_type": "LNPre"},
    {"normalization_type": "LN", "d_mlp": 20, "act_fn": "gelu"},
    {"normalization_type": "RMS", "d_mlp": 20, "act_fn": "silu"},
    {"normalization_type": "RMSPre", "d_mlp": 20, "act_fn": "relu"},
]


@DTYPES
@pytest.mark.parametrize("fields", BRIDGES, ids=lambda fields: "-".join(map(str, fields.values())))
@pytest.mark.filterwarnings("ignore")
def test_every_hook_shared_with_the_native_bridge_has_its_value(fields, dtype):
    bridge, model = native_bridge(dtype, **fields)
    tokens = tiny_tokens()
    with torch.no_grad():
        their_logits, theirs = bridge.run_with_cache(tokens)
        logits, ours = model.run_with_cache(tokens)
    if str(fields["normalization_type"]).startswith("RMS"):
        dtype = torch.float32  # their RMS norm computes in float32 whatever it is given
    assert close(logits, their_logits, dtype)
    shared = [name for name in ours if name in theirs.cache_dict]
    # Their attn_scores is the pattern after softmax (peers.md 1.3): no oracle for it.
    shared = [name for name in shared if not name.endswith("attn_scores")]
    for name in shared:
        assert close(ours[name], theirs[name], dtype), name
    wanted = ("hook_q", "hook_k", "hook_v", "hook_z", "hook_pattern", "hook_resid_pre",
              "hook_resid_post", "hook_attn_out", "hook_embed", "hook_pos_embed")  # fmt: skip
    assert all(any(name.endswith(want) for name in shared) for want in wanted)


def test_stopping_and_starting_at_a_layer_is_the_whole_run(variant):
    tokens = tiny_tokens()
    for layer in range(variant.cfg.n_layers + 1):
        resid = variant(tokens, stop_at_layer=layer)
        before = resid.clone()
        assert torch.allclose(variant(resid, start_at_layer=layer), variant(tokens), atol=1e-12)
        assert resid.equal(before)
    if variant.cfg.n_layers:
        last = variant(tokens, stop_at_layer=-1)
        assert last.equal(variant(tokens, stop_at_layer=variant.cfg.n_layers - 1))


def test_a_zero_layer_model_is_a_table_of_bigrams():
    model = tiny(n_layers=0, normalization_type=None, positional_embedding_type="none")
    table = model.W_E @ model.W_U + model.unembed.b_U
    assert torch.allclose(model(tiny_tokens()), table[tiny_tokens()])
    assert model.W_Q.shape == (0, 3, 12, 5)


def test_shortformer_positions_never_enter_the_stream():
    model = tiny(positional_embedding_type="shortformer", bias=False)
    _, cache = model.run_with_cache(tiny_tokens())
    assert cache["resid_pre", 0].equal(cache["embed"])
    without = tiny(positional_embedding_type="none", bias=False)
    _, other = without.run_with_cache(tiny_tokens())
    assert not cache["pattern", 0].allclose(other["pattern", 0])


def test_a_model_can_be_copied_and_pickled():
    model, tokens = tiny(d_mlp=6, act_fn="gelu_new"), tiny_tokens()
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again(tokens).equal(model(tokens))
        with again.hooks([("blocks.0.attn.hook_z", lambda z, hook: z * 0)]):
            assert not again(tokens).equal(model(tokens))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_gradients_of_examples_are_taken_at_once_by_vmap():
    model, tokens = tiny(), tiny_tokens()
    weights = dict(model.named_parameters())

    def loss(weights, row):
        return torch.func.functional_call(model, weights, (row[None], "loss"))

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, tokens)
    for number, row in enumerate(tokens):
        one = torch.func.grad(loss)(weights, row)
        assert all(torch.allclose(found[name][number], one[name]) for name in one)
    logits = torch.func.vmap(lambda row: model(row[None])[0])(tokens)
    assert torch.allclose(logits, model(tokens))
