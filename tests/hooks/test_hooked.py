"""Every hook point of a model works, and hooks never leak or fail silently."""

import pytest
import torch

from tests.conftest import OTHER_TASKS, VARIANTS, tiny, tiny_tokens, variant_name
from tests.hooks.comparing import no_hooks_left, same
from tests.oracles.formula import formula


@pytest.fixture(params=[*VARIANTS, *OTHER_TASKS], ids=variant_name)
def variant(request):
    """A tiny model of each architecture, also of bidirectional models and of other outputs."""
    return tiny(**request.param)


def test_a_hook_on_any_one_point_leaves_the_logits_alone(variant):
    tokens = tiny_tokens()
    logits = variant(tokens)
    for name in variant.hook_dict:
        heard, _ = variant.run_with_cache(tokens, names_filter=name)
        assert same(heard, logits), name


def test_hooks_on_all_points_leave_the_logits_alone(variant):
    tokens = tiny_tokens()
    heard, cache = variant.run_with_cache(tokens, names_filter="*")
    assert same(heard, variant(tokens))
    assert set(cache) == set(variant.hook_dict)


def test_what_is_seen_is_what_the_unfused_formula_gives(variant):
    tokens = tiny_tokens()
    expected = formula(variant, tokens)
    for names in ("*", *variant.hook_dict):  # all together, and each alone
        _, cache = variant.run_with_cache(tokens, names_filter=names)
        for name, value in cache.items():
            assert value.shape == expected[name].shape, name
            assert same(value.double(), expected[name].double()), name
    assert set(expected) == set(variant.hook_dict)


def test_a_replaced_value_changes_what_the_formula_says_depends_on_it(variant):
    """Every point is replaced in turn. The logits and all later points must equal the formula with
    the same replacement."""
    tokens = tiny_tokens()
    for name in variant.hook_dict:
        if name == "hook_tokens":
            continue
        noise = torch.randn(1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

        def edit(activation, hook, noise=noise):
            return activation * 1.5 + noise.abs()

        expected = formula(variant, tokens, {name: edit})
        with variant.hooks([(name, edit)]):
            logits, cache = variant.run_with_cache(tokens)
        assert same(logits, expected["logits"]), name
        for other in (other for other in variant.hook_dict if other in cache):
            value = cache[other]
            assert same(value.double(), expected[other].double()), (name, other)
        assert no_hooks_left(variant), name


def test_writing_in_place_does_what_returning_does(variant):
    tokens = tiny_tokens()

    def write(activation, hook):
        activation.mul_(1.5)

    for name in variant.hook_dict:
        if name == "hook_tokens":
            continue
        with torch.no_grad():
            written = variant.run_with_hooks(tokens, fwd_hooks=[(name, write)])
            returned = variant.run_with_hooks(tokens, fwd_hooks=[(name, lambda a, hook: a * 1.5)])
        assert same(written, returned), name
    assert same(variant(tokens), tiny_again(variant)(tokens)), "a hook wrote into a parameter"


def tiny_again(model):
    fields = {k: v for k, v in vars(model.cfg).items()}
    return tiny(**fields)


def test_names_may_be_exact_short_globs_predicates_or_lists():
    model = tiny()
    assert model.hook_names("embed") == ["hook_embed"]
    assert len(model.hook_names("blocks.*.attn.hook_z")) == 2
    assert model.hook_names(lambda name: name.endswith("1.hook_resid_post")) == [
        "blocks.1.hook_resid_post"
    ]
    assert model.hook_names(["blocks.1.hook_resid_pre", "embed"]) == [
        "hook_embed", "blocks.1.hook_resid_pre",
    ]  # fmt: skip


def test_an_unknown_name_lists_the_nearest():
    model = tiny()
    with pytest.raises(KeyError, match=r"no hook point matches 'blocks.0.attn.hook_paterm'; the n.*"
                       r"'blocks.0.attn.hook_pattern'"):  # fmt: skip
        model.run_with_hooks(tiny_tokens(), fwd_hooks=[("blocks.0.attn.hook_paterm", print)])
    with pytest.raises(KeyError, match=r"'blocks.9.\*'"):
        model.run_with_cache(tiny_tokens(), names_filter="blocks.9.*")


@pytest.mark.parametrize(("pos_slice", "kept"), [
    (2, slice(2, 3)), (-1, slice(-1, None)), (slice(1, 4), slice(1, 4)), ((1, 4), slice(1, 4)),
    ([0, 5], [0, 5]), (torch.tensor([0, 5]), [0, 5])])  # fmt: skip
def test_a_position_slice_keeps_those_positions_of_the_full_cache(pos_slice, kept):
    """One position keeps a dim of size 1, and a tuple is a slice, as in TransformerLens."""
    model, tokens = tiny(), tiny_tokens()
    _, full = model.run_with_cache(tokens)
    _, sliced = model.run_with_cache(tokens, pos_slice=pos_slice)
    assert same(sliced["resid_post", 1], full["resid_post", 1][:, kept])
    assert same(sliced["pattern", 1], full["pattern", 1][:, :, kept])


@pytest.mark.parametrize("what", ["W_Q", "W_K"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_broken_head_shows_with_any_hooks(what, dtype):
    """NaN in Q or K gives NaN in the logits, with and without the fused kernel, on any CPU."""
    model = tiny(dtype=dtype, n_ctx=40)
    getattr(model.blocks[1].attn, what).data[0] = torch.nan
    for pos in (1, 2, 7, 8, 11, 15, 16, 17, 20, 33):
        tokens = tiny_tokens(pos=pos)
        assert model(tokens).isnan().all(), pos
        assert model.run_with_cache(tokens)[0].isnan().all(), pos


def test_a_softmax_that_a_tool_puts_in_place_of_torchs_is_that_of_the_heads(monkeypatch):
    """gim-explain does this. The fused kernel would not call it."""
    model, plain = tiny(), torch.softmax

    def halved(scores, dim):
        return plain(scores, dim) / 2

    edits = {f"blocks.{at}.attn.hook_pattern": lambda p, hook: p / 2 for at in range(2)}
    expected = formula(model, tiny_tokens(), edits)["logits"]
    monkeypatch.setattr(torch.nn.functional, "softmax", halved)
    monkeypatch.setattr(torch.Tensor, "softmax", halved)
    got = model(tiny_tokens())
    monkeypatch.undo()
    assert same(got, expected)


def test_tools_may_call_a_gpt_as_they_call_a_hooked_transformer():
    model = tiny()
    assert model.to(torch.float32, print_details=False) is model and model.W_E.dtype.itemsize == 4
    with model.hooks([("hook_embed", lambda x, hook: 2 * x)], reset_hooks_end=True) as hooked:
        assert hooked is model and not no_hooks_left(model)
    assert no_hooks_left(model)
