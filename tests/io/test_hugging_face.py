"""The door to Hugging Face, by module and by name: what comes through is what it was."""

import pytest
import torch

from circuits import load
from circuits.data import train_tokenizer
from circuits.io import bridge
from tests.conftest import tiny, tiny_tokens
from tests.model.test_gpt import DTYPES, close

pytestmark = pytest.mark.filterwarnings("ignore")  # those of the libraries behind the door
TOKENS = tiny_tokens()
GPT2 = {"n_layer": 2, "n_head": 3, "n_embd": 15, "vocab_size": 29, "n_positions": 16}
NEO = {"num_layers": 2, "num_heads": 3, "hidden_size": 15, "vocab_size": 29, "window_size": 16,
       "max_position_embeddings": 16, "attention_types": [[["global", "local"], 1]]}  # fmt: skip

NEOX = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 24, "vocab_size": 29,
        "intermediate_size": 11, "max_position_embeddings": 64}  # fmt: skip
GPTJ = {"n_layer": 2, "n_head": 3, "n_embd": 24, "vocab_size": 29, "n_positions": 64,
        "rotary_dim": 4}  # fmt: skip

LLAMA = {"num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3,
         "hidden_size": 24, "vocab_size": 29, "intermediate_size": 11,
         "max_position_embeddings": 64}  # fmt: skip


def hugging_face(family, dtype=torch.float64, **fields):
    """A tiny model of transformers whose every parameter is random and matters."""
    import transformers

    shape, config, model = {
        "gpt2": (GPT2, transformers.GPT2Config, transformers.GPT2LMHeadModel),
        "gpt_neo": (NEO, transformers.GPTNeoConfig, transformers.GPTNeoForCausalLM),
        "gptj": (GPTJ, transformers.GPTJConfig, transformers.GPTJForCausalLM),
        "gpt_neox": (NEOX, transformers.GPTNeoXConfig, transformers.GPTNeoXForCausalLM),
        "llama": (LLAMA, transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "mistral": (LLAMA, transformers.MistralConfig, transformers.MistralForCausalLM),
        "qwen2": (LLAMA, transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
        "gemma": (LLAMA, transformers.GemmaConfig, transformers.GemmaForCausalLM),
    }[family]
    torch.manual_seed(0)
    made = model(config(attn_implementation="eager", **{**shape, **fields})).to(dtype).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


OTHER_GPT2 = {"activation_function": "relu", "n_inner": 7, "scale_attn_weights": False,
              "tie_word_embeddings": False, "layer_norm_epsilon": 0.1}  # fmt: skip

OTHER_LLAMA = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
               "head_dim": 6, "hidden_act": "gelu"}  # fmt: skip
OTHER_NEOX = {"use_parallel_residual": False, "hidden_act": "relu", "tie_word_embeddings": True,
              "rope_parameters": {"rope_type": "default", "rope_theta": 300.0,
                                  "partial_rotary_factor": 0.5}}  # fmt: skip


@DTYPES
@pytest.mark.parametrize(("family", "fields"), [
    ("gpt2", {}), ("gpt2", OTHER_GPT2), ("gpt_neo", {"intermediate_size": 9}),
    ("gpt_neox", {}), ("gpt_neox", OTHER_NEOX), ("gptj", {"n_inner": 9}), ("llama", {}),
    ("llama", OTHER_LLAMA), ("mistral", {"sliding_window": None}), ("qwen2", {})])  # fmt: skip
def test_a_model_of_hugging_face_has_its_logits_streams_and_patterns(family, fields, dtype):
    theirs = hugging_face(family, dtype, **fields)
    gpt = bridge.from_hugging_face(theirs)
    if family != "gpt2":
        dtype = torch.float32  # scores or angles are in float32 whatever they are given
    with torch.no_grad():
        expected = theirs(TOKENS, output_hidden_states=True, output_attentions=True)
        logits, cache = gpt.run_with_cache(TOKENS)
    assert close(logits, expected.logits, dtype)
    for layer in range(2):
        assert close(cache["resid_pre", layer], expected.hidden_states[layer], dtype)
        assert close(cache["pattern", layer], expected.attentions[layer], dtype)
    assert close(gpt.ln_final(cache["resid_post", 1]), expected.hidden_states[2], dtype)


@pytest.mark.parametrize(("family", "fields", "message"), [
    ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=True"),
    ("gpt2", {"activation_function": "tanh"}, "act_fn='tanh' is not supported"),
    ("gpt_neo", {"window_size": 15}, "use_local_attn=True cannot be expressed: .*window_size=15"),
    ("gpt_neox", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4,
                                      "partial_rotary_factor": 0.5}},
     "rope_parameters=.*linear.* cannot be expressed: rope_type must be 'default'"),
    ("llama", {"num_key_value_heads": 1}, "n_key_value_heads=1 cannot be expressed"),
    ("mistral", {"sliding_window": 63}, "use_local_attn=True cannot be expressed: .*=63"),
    ("gemma", {}, "model_type='gemma' cannot be expressed, for its rope_parameters=")])  # fmt: skip
def test_a_model_of_hugging_face_that_a_gpt_cannot_express_is_refused(family, fields, message):
    theirs = hugging_face(family, **fields)
    with pytest.raises(ValueError, match=message):
        bridge.from_hugging_face(theirs)


def test_a_model_without_an_unembedding_is_refused():
    from transformers import GPT2Config, GPT2Model

    with pytest.raises(ValueError, match="with lm_head, got GPT2Model"):
        bridge.from_hugging_face(GPT2Model(GPT2Config(**GPT2)))


def test_a_tokenizer_that_does_not_fit_is_left_out_aloud():
    tokenizer = bridge._fast_tokenizer(train_tokenizer(["the cat sat on the mat"], 270))
    with pytest.warns(UserWarning, match="the GPT has no tokenizer: expected .* at most 40"):
        gpt = bridge.from_hugging_face(hugging_face("gpt2", vocab_size=40), tokenizer)
    assert gpt.tokenizer is None


def test_a_gpt2_loads_by_name_and_without_network_the_error_says_what_ships(tmp_path, monkeypatch):
    from transformers import AutoConfig

    from circuits.io import pretrained

    vocabulary = train_tokenizer(["the cat sat on the mat"], 270)
    theirs = hugging_face("gpt2", torch.float32, vocab_size=270)
    theirs.save_pretrained(tmp_path)
    bridge._fast_tokenizer(vocabulary).save_pretrained(tmp_path)
    monkeypatch.setitem(pretrained.HUB, "gpt2", str(tmp_path))
    gpt = load("gpt2", dtype=torch.float64)
    assert gpt.W_E.dtype == torch.float64 and not gpt.training
    assert gpt.to_tokens("the cat").equal(vocabulary.to_tokens("the cat"))
    assert close(gpt(TOKENS), theirs.double()(TOKENS).logits, torch.float64)

    def offline(name, **at):
        raise OSError("no route to the Hub")

    monkeypatch.setattr(AutoConfig, "from_pretrained", offline)
    with pytest.raises(OSError, match=r"'distilgpt2' needs .*/distilgpt2.*attn-only-2l"):
        load("distilgpt2")


def test_models_that_cannot_be_expressed_are_refused_before_weights_are_fetched(
    tmp_path, monkeypatch
):
    from transformers import GPTNeoConfig

    from circuits.io import pretrained

    GPTNeoConfig(**{**NEO, "window_size": 8}).save_pretrained(tmp_path)  # and no weights
    monkeypatch.setitem(pretrained.HUB, "gpt2", str(tmp_path))
    with pytest.raises(ValueError, match=r"use_local_attn=True .*window_size=8"):
        load("gpt2")


def test_a_name_with_an_owner_and_a_revision_go_to_the_hub(monkeypatch):
    asked = []

    def from_hub(name, **given):
        asked.append((name, given))
        return tiny()

    monkeypatch.setattr(bridge, "from_hub", from_hub)
    load("EleutherAI/pythia-70m", revision="step1000")
    load("pythia-70m")
    given = {"dtype": torch.float32, "revision": None}
    assert asked == [("EleutherAI/pythia-70m", {**given, "revision": "step1000"}),
                     ("EleutherAI/pythia-70m", given)]  # fmt: skip
    with pytest.raises(ValueError, match="revision='main' is a version on the Hugging Face Hub"):
        load("attn-only-2l", revision="main")
    with pytest.raises(KeyError, match="no model 'pythia'"):
        load("pythia")
