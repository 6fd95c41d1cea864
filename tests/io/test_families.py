"""Families of transformers against their own models, with all of their float32 read as float64:
transformers computes norms, softmax and angles in float32 whatever the model's dtype."""

from unittest import mock

import pytest
import torch
from torch.overrides import TorchFunctionMode

from circuits.io import families
from circuits.io.hugging_face import from_hugging_face
from circuits.model import GPTConfig
from tests.conftest import tiny_tokens
from tests.io.test_hugging_face import OTHER_LLAMA, OTHER_NEOX, hugging_face

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own
TOKENS = tiny_tokens(2, 40)


class Float64(TorchFunctionMode):
    """Every float32 that is asked for becomes float64, also in .float() and in defaults."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.float:
            return args[0].double()
        wider = {torch.float32: torch.float64}
        args = [wider.get(one, one) if isinstance(one, torch.dtype) else one for one in args]
        kwargs = {name: wider.get(one, one) if isinstance(one, torch.dtype) else one
                  for name, one in (kwargs or {}).items()}  # fmt: skip
        return function(*args, **kwargs)


@pytest.fixture
def exact():
    """The context in which a model of transformers is made, and runs, in float64 alone."""
    torch.set_default_dtype(torch.float64)
    with mock.patch("torch.get_default_dtype", lambda: torch.float64), Float64():
        yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("family", "fields"), [
    ("gpt_neox", {}), ("gpt_neox", OTHER_NEOX), ("gptj", {"n_inner": 9}), ("llama", {}),
    ("llama", OTHER_LLAMA), ("mistral", {"sliding_window": None}), ("qwen2", {})])  # fmt: skip
@torch.no_grad()
def test_logits_streams_and_patterns_are_equal_to_1e_10(exact, family, fields):
    theirs = hugging_face(family, torch.float64, **fields)
    gpt = from_hugging_face(theirs)
    expected = theirs(TOKENS, output_hidden_states=True, output_attentions=True)
    logits, cache = gpt.run_with_cache(TOKENS)
    assert (logits - expected.logits).abs().max() < 1e-10
    for layer in range(2):
        assert (cache["resid_pre", layer] - expected.hidden_states[layer]).abs().max() < 1e-10
        assert (cache["pattern", layer] - expected.attentions[layer]).abs().max() < 1e-10


def test_a_fused_weight_is_taken_apart_head_by_head():
    cfg = GPTConfig(n_layers=1, d_model=4, n_heads=2, d_head=2, d_vocab=5, n_ctx=4)
    fused = torch.arange(12.0)  # q of head 0, k of head 0, v of head 0, q of head 1, ...
    q, k, v = families.neox.head_by_head(fused, cfg)
    assert q.tolist() == [0, 1, 6, 7] and k.tolist() == [2, 3, 8, 9] and v[2] == 10
    assert families.gpt2.side_by_side(fused, cfg)[1].tolist() == [4, 5, 6, 7]


def test_a_weight_that_is_not_there_is_named():
    cfg = GPTConfig(n_layers=0, d_model=4, n_heads=2, d_head=2, d_vocab=5, n_ctx=4)
    with pytest.raises(ValueError, match=r"no weight gpt_neox\.embed_in\.weight"):
        families.weights_of(families.FAMILIES["gpt_neox"], {}, cfg)


def test_every_family_names_the_same_parts():
    for family in families.FAMILIES.values():
        parts = {one for part in family.parts for one in part.split()}
        assert parts >= {"ln1", "ln2", "attn.Q", "attn.K", "attn.V", "attn.O", "mlp.in", "mlp.out"}
        assert set(family.stem) >= {"embed.E", "ln_final", "unembed.U"}
