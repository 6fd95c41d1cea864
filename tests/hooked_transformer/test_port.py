"""The port: a script for HookedTransformer runs with its import changed, and prints equal numbers.

ported_script.txt is what it printed with transformer-lens 3.9.0 on these weights:
`python ported_script.py`, beside induction.pth as the test writes it.
"""

from pathlib import Path

import pytest
import torch

from analyses import attention
from circuits import residual
from circuits.ground_truth import InductionAmongDistractors
from circuits.hooked_transformer import HookedTransformer
from tests.conftest import tiny, tiny_tokens

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SCRIPT = Path(__file__).with_name("ported_script.py")


def hooked_transformer_weights() -> dict[str, torch.Tensor]:
    """The state dict that HookedTransformer.state_dict() gives of an induction circuit among random
    heads, with some noise on every weight and bias, and with its masks."""
    model = InductionAmongDistractors(20, 60, distractors=3).model
    generator = torch.Generator().manual_seed(0)
    weights = dict(model.state_dict())
    for layer in range(2):
        for letter in "QKV":
            weights[f"blocks.{layer}.attn.b_{letter}"] = torch.zeros(4, 60)
        weights[f"blocks.{layer}.attn.b_O"] = torch.zeros(120)
    weights["unembed.b_U"] = torch.zeros(20)
    noisy = {
        name: w.double() + 0.003 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
        for name, w in sorted(weights.items())
    }
    masks = {}
    for layer in range(2):
        masks[f"blocks.{layer}.attn.mask"] = torch.ones(60, 60).tril().bool()
        masks[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
    return {**noisy, **masks}


def test_the_script_prints_here_what_it_printed_with_transformer_lens(
    tmp_path, monkeypatch, capsys
):
    """The script asserts by itself that terms sum to logits, scores and streams."""
    torch.save(hooked_transformer_weights(), tmp_path / "induction.pth")
    monkeypatch.chdir(tmp_path)
    text = SCRIPT.read_text()
    ported = text.replace("from transformer_lens import", "from circuits.hooked_transformer import")
    assert ported != text
    exec(compile(ported, str(SCRIPT), "exec"), {"__name__": "ported"})
    ours = capsys.readouterr().out.splitlines()
    theirs = SCRIPT.with_suffix(".txt").read_text().splitlines()
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        (name, _, numbers), (their_name, _, expected) = mine.partition(":"), other.partition(":")
        assert name == their_name
        if "heads" in name or name == "the largest":
            assert numbers == expected, name
        else:
            assert list(map(float, numbers.split())) == pytest.approx(
                list(map(float, expected.split())), abs=1e-5
            ), name
    assert "previous-token heads: ['0.3']" in ours and "induction heads: ['1.0']" in ours


def ported(**fields) -> HookedTransformer:
    """A tiny GPT whose every parameter matters, as a HookedTransformer."""
    gpt = tiny(**fields)
    model = HookedTransformer({**vars(gpt.cfg), "dtype": torch.float64})
    model.load_state_dict(gpt.state_dict())
    return model.eval()


KINDS = [
    {"positional_embedding_type": "shortformer", "normalization_type": None},
    {"positional_embedding_type": "standard", "d_mlp": 6, "act_fn": "gelu"},
    {"positional_embedding_type": "none", "bias": False, "normalization_type": "RMSPre"},
]


@pytest.mark.parametrize("fields", KINDS, ids=lambda f: f["positional_embedding_type"])
def test_what_the_cache_of_transformer_lens_computes_is_what_residual_does(fields):
    model = ported(**fields)
    final, n = model.ln_final, model.cfg.n_layers
    with torch.no_grad():
        logits, cache = model.run_with_cache(tiny_tokens())
        layers = residual.components(model, cache, by="layer")
        stack, labels = cache.decompose_resid(return_labels=True)
        assert len(labels) == len(layers) and torch.allclose(stack, layers.stack)
        assert torch.allclose(stack.sum(0), cache["resid_post", -1])
        assert torch.allclose(cache.accumulated_resid(incl_mid=True),
                              residual.streams(model, cache, mid=True))  # fmt: skip
        heads = torch.cat([residual.head_results(model, cache, at) for at in range(n)], 2)
        assert torch.allclose(cache.stack_head_results(), heads.movedim(2, 0))
        assert cache.stack_activation("pattern").equal(
            torch.stack([cache["pattern", at] for at in range(n)]))  # fmt: skip
        every = cache.get_full_resid_decomposition(expand_neurons=False)
        assert torch.allclose(every.sum(0), cache["resid_post", -1])
        scaled = cache.apply_ln_to_stack(stack)
        w = getattr(final, "w", None)
        read = residual.through_norm(model, cache, stack)
        assert torch.allclose(scaled if w is None else scaled * w, read)
        if w is None:  # theirs reads W_U as if the gain were folded into it
            mine = residual.logit_attribution(model, cache, 3).stack[: model.cfg.n_heads + 1]
            theirs = cache.logit_attrs(stack, tokens=3)
            assert torch.allclose(theirs[0], mine[0])
            b_U = 0 if model.unembed.b_U is None else model.unembed.b_U[3]
            assert torch.allclose(theirs.sum(0) + b_U, logits[..., 3])


def test_a_cache_keeps_what_flags_say_and_stays_what_it_is():
    model, tokens = ported(d_mlp=6, act_fn="relu"), tiny_tokens(batch=1)
    _, plain = model.run_with_cache(tokens)
    with pytest.raises(KeyError, match=r"kept only when named: names_filter='blocks.0.attn.hook_"):
        plain["result", 0]
    plain.compute_head_results()
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    assert model.cfg.use_attn_result and model.cfg.use_hook_mlp_in
    _, cache = model.run_with_cache(tokens)
    assert torch.allclose(plain["result", 1], cache["result", 1])
    assert cache["k_input", 1].shape == (1, 7, 3, 12) and "blocks.0.hook_mlp_in" in cache
    _, kept = model.run_with_cache(tokens, return_cache_object=False, names_filter="*hook_z")
    assert type(kept) is dict and torch.allclose(kept["blocks.0.attn.hook_z"], cache["z", 0])
    cache.remove_batch_dim()  # as a statement: it changes the cache itself, as does `to`
    assert cache["result", 1].shape == (7, 3, 12) and not cache.has_batch_dim
    assert cache.remove_batch_dim() is cache and cache.stack_head_results().shape == (6, 7, 12)
    cache.to(torch.float32)
    assert cache["z", 0].dtype == torch.float32 and cache["result", 1].shape == (7, 3, 12)
    cache.cache_dict["blocks.0.attn.hook_z"] = cache["z", 1]
    assert cache["z", 0] is cache["z", 1]
    model.set_use_attn_result(False)
    assert ("result", 0) not in model.run_with_cache(tokens)[1]
    with pytest.raises(
        AttributeError, match=r"no 'logit_lens' here: write circuits.decomposition.residual.logit_l"
    ):
        cache.logit_lens()
    with pytest.raises(ValueError, match="another model's run"):
        residual.components(ported(seed=1, d_mlp=6, act_fn="relu"), cache)


def test_analyses_take_it_as_the_gpt_it_is():
    gpt = tiny()
    assert attention.previous_token(ported()).equals(attention.previous_token(gpt))
