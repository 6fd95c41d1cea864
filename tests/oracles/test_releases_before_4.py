"""A HookedTransformer of TransformerLens 3.x, the real one, comes in with everything it computes.

From 4 on there is no HookedTransformer, so these tests run where 3.x is installed, as it is beside
sae-lens, and are skipped elsewhere. `pip install "transformer-lens<4"` makes them run.
"""

from importlib.metadata import version

import pytest
import torch

from analyses import attention, induction
from circuits.io import bridge, from_state_dict
from tests.conftest import TINY, tiny, tiny_tokens
from tests.model.test_gpt import close

pytestmark = [
    pytest.mark.skipif(
        int(version("transformer-lens").split(".")[0]) > 3,
        reason="HookedTransformer ended with TransformerLens 3",
    ),
    pytest.mark.filterwarnings("ignore"),
]
MLP = {"d_mlp": 9, "act_fn": "gelu"}
SHORTFORMER = {"positional_embedding_type": "shortformer"}


def hooked(**fields):
    """A tiny HookedTransformer in float64 whose every parameter is random and matters."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    shape = {**TINY, "dtype": torch.float64, "device": "cpu", "seed": 0, **fields}
    model = HookedTransformer(HookedTransformerConfig(**shape, attn_only="d_mlp" not in fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("fields", [
    {"normalization_type": None, **SHORTFORMER}, {"normalization_type": "LN", **SHORTFORMER},
    {"normalization_type": "LN", **MLP}, {"normalization_type": "LNPre", **MLP},
    {"normalization_type": "RMS", **MLP}, {"attention_dir": "bidirectional"},
    {"normalization_type": "RMSPre", "d_vocab_out": 5, "d_mlp": 9, "act_fn": "solu"},
    {"normalization_type": "LNPre", "d_mlp": 9, "act_fn": "solu_ln"}])  # fmt: skip
def test_it_has_equal_logits_and_activations_at_every_hook_both_have(fields):
    theirs = hooked(**fields)
    gpt = bridge.from_transformer_lens(theirs)
    with torch.no_grad():
        logits, cache = gpt.run_with_cache(tiny_tokens())
        their_logits, their_cache = theirs.run_with_cache(tiny_tokens())
    assert close(logits, their_logits, torch.float64)
    kept = [name for name in gpt.hook_dict if name in cache]
    shared = [name for name in kept if name in their_cache.cache_dict]
    others = {name.rpartition(".")[2] for name in kept if name not in shared}
    assert others == {"hook_tokens", "hook_mlp_in" if "d_mlp" in fields else "hook_resid_mid"}
    for name in shared:  # its scores are true ones, -inf where masked
        assert close(cache[name], their_cache[name], torch.float64), name


def test_weights_it_folded_and_its_checkpoint_come_as_they_are(tmp_path):
    theirs = hooked(normalization_type="LN", **MLP)
    before = bridge.from_transformer_lens(theirs)
    theirs.process_weights_()
    gpt = bridge.from_transformer_lens(theirs)
    torch.save(theirs.state_dict(), tmp_path / "model.pth")
    again = from_state_dict(vars(theirs.cfg), tmp_path / "model.pth", dtype=torch.float64)
    with torch.no_grad():
        log_probs = [model(tiny_tokens()).log_softmax(-1) for model in (before, gpt, again)]
    assert gpt.cfg.normalization_type == "LNPre" and before.cfg.normalization_type == "LN"
    assert close(log_probs[1], log_probs[0], torch.float32) and log_probs[2].equal(log_probs[1])


def test_what_a_gpt_lacks_is_refused_by_field():
    with pytest.raises(ValueError, match="positional_embedding_type='rotary'"):
        bridge.from_transformer_lens(hooked(positional_embedding_type="rotary", d_head=4))
    with pytest.raises(ValueError, match="n_key_value_heads=1"):
        bridge.from_transformer_lens(hooked(n_key_value_heads=1))


def test_what_its_native_bridges_lack_is_refused_by_field():
    with pytest.raises(ValueError, match="act_fn='solu'"):
        bridge.to_transformer_lens(tiny(d_mlp=7, act_fn="solu"))


def test_analyses_of_it_are_those_of_its_gpt():
    theirs = hooked(normalization_type="LN", **SHORTFORMER)
    gpt = bridge.from_transformer_lens(theirs)
    for analysis in (attention.prefix_matching, attention.previous_token,
                     induction.loss_by_position):  # fmt: skip
        assert torch.allclose(
            torch.tensor(analysis(theirs).values), torch.tensor(analysis(gpt).values)
        )
