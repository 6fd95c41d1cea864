"""TransformerLens's own tools on our models: they run unchanged, and say what ours say."""

import pytest
import torch

from analyses import Task, attention, patching
from circuits import hooks, load, residual
from tests.conftest import tiny, tiny_tokens
from tests.hooks.test_hook_semantics import COMMON

MODEL = tiny(d_mlp=6, act_fn="gelu", normalization_type="LNPre", dtype=torch.float32)
CLEAN, CORRUPTED = (tiny_tokens(batch=1, pos=5, seed=seed) for seed in (1, 2))
with torch.no_grad():
    _, CACHE = MODEL.run_with_cache(CLEAN)
PARTS = {"out": "z", "q": "q", "k": "k", "v": "v", "pattern": "pattern"}


def metric(logits):
    return logits[..., -1, 3]


TASK = Task(MODEL, CLEAN, CORRUPTED, metric, at=None)


@pytest.mark.parametrize("place", ["resid_pre", "resid_mid", "attn_out", "mlp_out"])
def test_patching_by_position(place):
    from transformer_lens import patching as theirs

    with torch.no_grad():
        found = getattr(theirs, f"get_act_patch_{place}")(
            MODEL, CORRUPTED, CACHE, lambda logits: metric(logits)[0]
        )
    ours = patching.positions(TASK, place=place)
    assert torch.allclose(found, torch.tensor(ours.values[..., 0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_patching_by_head_and_by_head_and_position(part):
    from transformer_lens import patching as theirs

    for by_position, name in ((False, "all_pos"), (True, "by_pos")):
        with torch.no_grad():
            found = getattr(theirs, f"get_act_patch_attn_head_{part}_{name}")(
                MODEL, CORRUPTED, CACHE, lambda logits: metric(logits)[0]
            )
        ours = patching.heads(TASK, part=PARTS[part], by_position=by_position).values[..., 0]
        if by_position and part != "pattern":  # theirs is [layer pos head] then
            ours = ours.swapaxes(1, 2)
        assert torch.allclose(found, torch.tensor(ours), rtol=0, atol=1e-5)


def test_the_sweeps_that_join_these():
    from transformer_lens import patching as theirs

    def one(logits):
        return metric(logits)[0]

    with torch.no_grad():
        every = theirs.get_act_patch_attn_head_all_pos_every(MODEL, CORRUPTED, CACHE, one)
        blocks = theirs.get_act_patch_block_every(MODEL, CORRUPTED, CACHE, one)
        edges = theirs.get_act_patch_attn_head_pattern_dest_src_pos(MODEL, CORRUPTED, CACHE, one)
        whole = theirs.get_act_patch_resid_pre(MODEL, CORRUPTED, CACHE, one)
    assert every.shape == (5, 2, 3) and blocks.shape == (3, 2, 5) and edges.shape == (2, 3, 5, 5)
    assert blocks[0].allclose(whole)


def test_its_cache_takes_ours_apart_as_we_do():
    from transformer_lens import ActivationCache

    theirs = ActivationCache(dict(CACHE), MODEL)
    parts = residual.components(MODEL, CACHE)
    heads = [label for label in parts if label.startswith("L") and "H" in label]
    with torch.no_grad():
        results = theirs.stack_head_results(layer=-1)
        whole = theirs.decompose_resid(layer=-1).sum(0)
        lens = theirs.accumulated_resid(layer=-1, incl_mid=True)
    assert torch.allclose(results, torch.stack([parts[label] for label in heads]), atol=1e-5)
    assert torch.allclose(whole, residual.stream(MODEL, CACHE), atol=1e-5)
    ours = residual.accumulated(MODEL, CACHE, mid=True)
    assert lens.shape == ours.shape and torch.allclose(lens, ours, atol=1e-5)


@pytest.mark.parametrize("fields", [
    {"positional_embedding_type": "shortformer"}, {"d_mlp": 6, "act_fn": "gelu"},
    {"bias": False}])  # fmt: skip
def test_what_its_cache_takes_apart_sums_to_the_stream(fields):
    from transformer_lens import ActivationCache

    model = tiny(dtype=torch.float32, **fields)
    with torch.no_grad():
        _, cache = model.run_with_cache(CLEAN)
        theirs = ActivationCache(dict(cache), model)
        every = theirs.get_full_resid_decomposition(layer=-1, expand_neurons=False)
        for whole in (theirs.decompose_resid(layer=-1), every):
            assert torch.allclose(whole.sum(0), cache["resid_post", 1], atol=1e-5)


def test_its_direct_logit_attribution_says_what_ours_says():
    from transformer_lens import ActivationCache

    tools = pytest.importorskip("transformer_lens.tools.analysis", reason="3.x has none")
    theirs = ActivationCache(dict(CACHE), MODEL)
    with torch.no_grad():
        ours = residual.logit_attribution(MODEL, CACHE, 3, against=4)
        found = tools.direct_logit_attribution(MODEL, CLEAN, 3, 4, unit="component", cache=theirs)
    each = dict(zip(found.labels, found.attribution.flatten().tolist(), strict=True))
    assert each["embed"] == pytest.approx(float(ours["embed"][0, -1]), abs=1e-5)
    assert each["0_mlp_out"] == pytest.approx(
        float(ours["MLP0"][0, -1] + ours["L0 b_out"][0, -1]), abs=1e-5
    )


def test_it_finds_the_previous_token_head():
    from transformer_lens import head_detector

    ships = load("attn-only-2l")
    found = head_detector.detect_head(ships, "He said that he saw", "previous_token_head")
    assert found.argmax() == int(attention.previous_token(ships).values.argmax())


def rooted(root, point):
    """The smallest model with two hook points, on a root and of points of either library."""

    class Rooted(root):
        def __init__(self):
            super().__init__()
            self.hook_embed, self.hook_pos_embed = point(), point()
            self.setup() if hasattr(self, "setup") else self.name_hooks()

        def forward(self, x):
            return self.hook_pos_embed(3 * self.hook_embed(2 * x))

    return Rooted()


@pytest.mark.parametrize("scenario", COMMON, ids=lambda scenario: scenario.__name__)
def test_hooks_do_what_hooks_of_a_HookedRootModule_do(scenario):
    from transformer_lens.hook_points import HookPoint as TheirPoint
    from transformer_lens.HookedRootModule import HookedRootModule

    x = torch.arange(6.0).reshape(2, 3).requires_grad_()
    theirs = scenario(rooted(HookedRootModule, TheirPoint), x)
    assert theirs and theirs == scenario(rooted(hooks.Hooked, hooks.HookPoint), x)
