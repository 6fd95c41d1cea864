"""The door to TransformerLens: what comes through is what it was."""

from importlib.metadata import version
from types import SimpleNamespace

import pytest
import torch

from analyses import attention, induction, prompts
from circuits import GPT, GPTConfig
from circuits.data import train_tokenizer
from circuits.ground_truth.controls import at_initialisation
from circuits.io import bridge
from circuits.model import process_weights
from tests.conftest import TINY, tiny, tiny_tokens
from tests.io.test_checkpoints import THEIRS, checkpoint
from tests.io.test_hugging_face import hugging_face
from tests.model.test_gpt import BRIDGES, close, native_bridge

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries behind the door
from_4_on = pytest.mark.skipif(
    int(version("transformer-lens").split(".")[0]) < 4,
    reason="native bridges of TransformerLens 3 have no SoLU, and refuse it",
)
TOKENS = tiny_tokens()


def same_weights(a, b) -> bool:
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(
        weight.equal(theirs[name]) for name, weight in a.state_dict().items()
    )


def wrapped(model):
    """A TransformerBridge around a model of transformers."""
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    architecture = type(model).__name__
    return build_bridge_from_module(model, architecture=architecture, hf_config=model.config)


@pytest.mark.parametrize("fields", BRIDGES[::2], ids=lambda f: "-".join(map(str, f.values())))
def test_a_native_bridge_comes_in_and_goes_out_bit_for_bit(fields):
    """test_gpt.py shows that these weights give equal activations at every shared hook."""
    theirs, expected = native_bridge(torch.float64, **fields)
    gpt = bridge.from_transformer_lens(theirs)
    assert same_weights(gpt, expected) and gpt.cfg == expected.cfg
    again = bridge.from_transformer_lens(bridge.to_transformer_lens(gpt))
    assert same_weights(again, gpt) and again.cfg == gpt.cfg


@pytest.mark.parametrize("family", ["gpt2", "gpt_neo", "gpt_neox", "gptj", "llama", "qwen2"])
def test_a_bridge_around_a_model_of_hugging_face_has_every_shared_hook(family):
    theirs = wrapped(hugging_face(family))
    gpt = bridge.from_transformer_lens(theirs)
    with torch.no_grad():
        expected, their_cache = theirs.run_with_cache(TOKENS)
        logits, cache = gpt.run_with_cache(TOKENS)
    dtype = torch.float64 if family == "gpt2" else torch.float32
    assert close(logits, expected, dtype)
    shared = [name for name in cache if name in their_cache.cache_dict]
    others = {name.rpartition(".")[2] for name in cache if name not in shared}
    wanted = {"hook_tokens", "hook_mlp_in"}  # which theirs keeps on request only
    wanted |= {"hook_rot_q", "hook_rot_k"} & others if gpt.cfg.rotary else set()
    wanted |= {"hook_scale", "hook_normalized"} if family == "gptj" else set()  # of ln2
    assert others == wanted
    for name in shared:
        mine, other = cache[name], their_cache[name]
        if name.endswith("attn_scores"):
            if family in ("gpt_neo", "gptj"):
                continue  # theirs is the pattern, as in a native bridge
            mine, other = mine.tril(), other.tril()  # theirs is masked with the lowest number
        assert close(mine, other, dtype), name


def test_processed_weights_come_as_they_are():
    theirs, before = native_bridge(torch.float64, normalization_type="LN", d_mlp=20, act_fn="gelu")
    theirs.enable_compatibility_mode(disable_warnings=True)
    gpt = bridge.from_transformer_lens(theirs)
    with torch.no_grad():
        assert close(gpt(TOKENS), theirs(TOKENS), torch.float64)
        assert close(gpt(TOKENS).log_softmax(-1), before(TOKENS).log_softmax(-1), torch.float32)
    assert gpt.W_U.mean(-1).abs().max() < 1e-6 < before.W_U.mean(-1).abs().max()  # centred


@pytest.mark.parametrize("fields", [
    {"bias": False, "normalization_type": "LN"}, {"positional_embedding_type": "none"},
    {"positional_embedding_type": "sinusoidal", "d_mlp": 7, "act_fn": "gelu_new"},
    {"attn_scale": 1.5}, {"attention_dir": "bidirectional"},
    pytest.param({"d_vocab_out": 5, "d_mlp": 7, "act_fn": "solu"}, marks=from_4_on),
    pytest.param({"normalization_type": "LN", "d_mlp": 7, "act_fn": "solu_ln"}, marks=from_4_on),
    pytest.param({"normalization_type": "LNPre", "d_mlp": 7, "act_fn": "solu_ln"}, marks=from_4_on),
])  # fmt: skip
def test_what_a_native_bridge_writes_otherwise_has_the_same_logits(fields):
    gpt = tiny(**fields)
    theirs = bridge.to_transformer_lens(gpt)
    with torch.no_grad():
        assert close(theirs(TOKENS), gpt(TOKENS), torch.float64)
        assert bridge.from_transformer_lens(theirs)(TOKENS).equal(gpt(TOKENS))


@pytest.mark.parametrize(("fields", "message"), [
    ({"positional_embedding_type": "shortformer"}, "positional_embedding_type='shortformer'"),
    ({"smeared_keys": True}, "smeared_keys=True"), ({"n_layers": 0}, "n_layers=0"),
    ({"attn_scale": 1.0}, "attn_scale=1.0"),
    ({"positional_embedding_type": "rotary", "d_head": 4}, "positional_embedding_type='rotary'"),
    ({"parallel_attn_mlp": True, "d_mlp": 7, "act_fn": "gelu"}, "parallel_attn_mlp=True"),
    ({"gated_mlp": True, "d_mlp": 7, "act_fn": "gelu"}, "gated_mlp=True"),
])  # fmt: skip
def test_what_a_native_bridge_lacks_is_refused_by_field(fields, message):
    with pytest.raises(ValueError, match=f"{message} cannot be expressed by a native"):
        bridge.to_transformer_lens(tiny(**fields))


def native(**fields):
    """A native bridge as TransformerLens makes it, which accepts fields that it does not act on."""
    import transformer_lens.model_bridge.sources  # noqa: F401  registers boot_native
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_native(
        TransformerBridgeConfig(**{**TINY, "act_fn": "gelu", "seed": 0, **fields})
    ).eval()


@pytest.mark.parametrize(("fields", "message"), [
    ({"n_key_value_heads": 1}, "n_key_value_heads=1"),
    ({"parallel_attn_mlp": True}, r"logits of the two models differ by \d"),  # it is not parallel
    ({"output_logits_soft_cap": 9.0}, "output_logits_soft_cap=9.0"),
    ({"final_rms": True}, "final_rms=True")])  # fmt: skip
def test_what_a_gpt_lacks_is_refused_by_field(fields, message):
    with pytest.raises(ValueError, match=message):
        bridge.from_transformer_lens(native(**fields))


def test_a_bridge_around_a_model_that_a_gpt_cannot_express_is_refused():
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    theirs = wrapped(hugging_face("gpt_neox", rope_parameters=linear))
    with pytest.raises(
        ValueError, match=r"rope_parameters=.*linear.* cannot be expressed: rope_type must be"
    ):
        bridge.from_transformer_lens(theirs)


def test_a_model_that_computes_what_its_config_does_not_say_is_refused():
    theirs = native()
    theirs.add_hook("blocks.0.attn.hook_z", lambda z, hook: z * 0)
    with pytest.raises(ValueError, match=r"the logits of the two models differ by \d"):
        bridge.from_transformer_lens(theirs)
    theirs.reset_hooks()
    bridge.from_transformer_lens(theirs)


class Hooked(torch.nn.Module):
    """As a HookedTransformer of releases before 4 presents itself, computed by one of ours."""

    tokenizer = None

    def __init__(self, model):
        super().__init__()
        self.cfg, self.model = SimpleNamespace(**THEIRS), model

    def forward(self, tokens):
        return self.model(tokens)

    def state_dict(self):
        return checkpoint(self.model)


def test_a_hooked_transformer_of_earlier_releases_comes_in():
    model = tiny(normalization_type="LN", positional_embedding_type="shortformer")
    gpt = bridge.from_transformer_lens(Hooked(model))
    assert same_weights(gpt, model) and gpt.cfg == model.cfg and gpt.training


def test_other_things_than_models_are_refused():
    with pytest.raises(ValueError, match="expected a TransformerBridge, got GPT"):
        bridge.from_transformer_lens(tiny())
    with pytest.raises(ValueError, match="expected a TransformerBridge, got str"):
        bridge.from_transformer_lens("gpt2")


def test_text_goes_along_both_ways():
    vocabulary = train_tokenizer(["the cat sat on the mat"], 270)
    gpt = GPT(GPTConfig(**{**TINY, "d_vocab": 270}), vocabulary)
    theirs = bridge.to_transformer_lens(gpt)
    tokens = gpt.to_tokens("the cat")
    assert theirs.to_tokens("the cat").equal(tokens)
    back = bridge.from_transformer_lens(theirs)
    assert back.to_tokens("the cat").equal(tokens) and back.to_string(tokens[0, 1:]) == "the cat"


def test_prompts_of_a_gpt2_without_a_tokenizer_begin_with_its_own_bos():
    theirs = hugging_face("gpt2", vocab_size=40, bos_token_id=39)
    for gpt in (bridge.from_hugging_face(theirs), bridge.from_transformer_lens(wrapped(theirs))):
        for model in (gpt, at_initialisation(gpt), process_weights(gpt, fold_ln=True)):
            assert (prompts.repeated(model)[:, 0] == 39).all()
    assert bridge.from_hugging_face(hugging_face("gpt2")).bos == 0  # theirs is no token of it


def test_analyses_of_a_bridge_are_those_of_its_gpt():
    theirs, gpt = native_bridge(torch.float64, normalization_type="LN", d_mlp=20, act_fn="gelu")
    for analysis in (attention.prefix_matching, attention.previous_token, attention.first_token,
                     induction.loss_by_position):  # fmt: skip
        assert torch.allclose(
            torch.tensor(analysis(theirs).values), torch.tensor(analysis(gpt).values)
        )
