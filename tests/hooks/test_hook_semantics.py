"""The behaviour of hooks, row by row. No row leaves a hook or a context behind.

Each row of the table is a small scenario. After it the model must have no hook left but permanent
ones, no hook of torch's, and the weights and logits that it had. The rows in `COMMON` use only what
HookedRootModule of TransformerLens has too; tests/io/test_bridge.py plays them to both.
"""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from tests.conftest import tiny, tiny_tokens

EMBED, POS, LATE = "hook_embed", "hook_pos_embed", "blocks.1.hook_resid_post"
COMMON, ROWS = [], []


def row(scenario):
    ROWS.append(scenario)
    return scenario


def common(scenario):
    COMMON.append(scenario)
    return row(scenario)


class Broken(Exception):
    pass


def note(calls, word):
    """A hook that only notes that it was called."""
    return lambda activation, hook: calls.append(word)


def times(factor):
    return lambda activation, hook: activation * factor


def fail(activation, hook):
    raise Broken(hook.name)


# attach, reset, permanent, prepend


@common
def a_hook_stays_until_it_is_reset(model, x):
    calls = []
    model.add_hook(EMBED, note(calls, "a"))
    model(x), model(x)
    model.reset_hooks()
    model(x)
    assert calls == ["a", "a"]
    return calls


@common
def hooks_fire_in_the_order_of_the_run_then_of_attaching_and_prepended_ones_first(model, x):
    calls = []
    for name, word, prepend in ((POS, "late", False), (EMBED, "a", False), (EMBED, "b", False),
                                (EMBED, "c", True), (EMBED, "d", True)):  # fmt: skip
        model.add_hook(name, note(calls, word), prepend=prepend)
    model(x)
    model.reset_hooks()
    assert calls == ["d", "c", "a", "b", "late"]
    return calls


@common
def permanent_hooks_outlive_a_reset(model, x):
    calls = []
    model.add_hook(EMBED, note(calls, "permanent"), is_permanent=True)
    model.add_hook(EMBED, note(calls, "first"), prepend=True)
    model(x)
    model.reset_hooks()
    model(x)
    model.reset_hooks(including_permanent=True)
    model(x)
    assert calls == ["first", "permanent", "permanent"]
    return calls


@common
def permanent_hooks_outlive_contexts_runs_and_errors(model, x):
    calls = []
    model.add_hook(EMBED, note(calls, "permanent"), is_permanent=True)
    with model.hooks([(EMBED, note(calls, "context"))]):
        model(x)
    with pytest.raises(Broken):
        model.run_with_hooks(x, fwd_hooks=[(POS, fail)])
    model(x)
    assert calls == ["permanent", "context", "permanent", "permanent"]
    return calls


@common
def a_reset_may_leave_one_direction_or_the_contexts(model, x):
    calls = []
    model.add_hook(EMBED, lambda x, hook: hook.ctx.update(seen=True))
    model.add_hook(EMBED, note(calls, "bwd"), "bwd")
    model(x).sum().backward()
    model.reset_hooks(direction="fwd", clear_contexts=False)
    calls += [dict(model.hook_dict[EMBED].ctx)]
    model(x).sum().backward()
    model.reset_hooks(direction="bwd")
    calls += [dict(model.hook_dict[EMBED].ctx)]
    model(x).sum().backward()
    assert calls == ["bwd", {"seen": True}, "bwd", {}]
    return calls


@row
def an_unknown_direction_is_refused(model, tokens):
    model.add_hook(EMBED, times(2))
    for call in (model.reset_hooks, model.hook_dict[EMBED].remove_hooks):
        with pytest.raises((ValueError, TypeError), match=r"dir must be one of|Literal"):
            call(**{"direction" if call == model.reset_hooks else "dir": "forward"})
    model.reset_hooks()


@common
def points_have_the_methods_of_theirs_and_take_arguments_by_place(model, x):
    calls, point = [], model.hook_dict[EMBED]
    point.add_perma_hook(note(calls, "permanent"))
    point.add_hook(note(calls, "second"), "fwd", True)
    point.add_hook(note(calls, "first"), prepend=True)
    model.add_hook(EMBED, note(calls, "last"), "fwd", False)
    calls += [len(point.fwd_hooks), len(point.bwd_hooks), point.has_hooks(),
              point.has_hooks("bwd"), [hook.is_permanent for hook in point.fwd_hooks]]  # fmt: skip
    model(x)
    point.remove_hooks()
    calls += [point.has_hooks(including_permanent=False)]
    point.ctx["seen"] = True
    point.clear_context()
    model(x)
    point.remove_hooks("fwd", True)
    calls += [point.ctx, point.has_hooks()]
    assert calls == [4, 0, True, False, [False, True, True, False], "first", "permanent", "second",
                     "last", False, "permanent", "second", {}, False]  # fmt: skip
    return calls


@common
def hooks_of_a_level_are_reset_alone_and_contexts_have_one_each(model, x):
    calls = []
    model.add_hook(EMBED, note(calls, "plain"))
    model.add_hook(EMBED, note(calls, "seven"), level=7)
    with model.hooks([(EMBED, note(calls, "outer"))]):
        with model.hooks([(EMBED, note(calls, "inner"))]):
            model.reset_hooks(level=2)
            model(x)
        model.reset_hooks(level=7)
        model(x)
    model.reset_hooks()
    assert calls == ["plain", "seven", "outer", "plain", "outer"]
    return calls


@common
def hooks_of_a_context_or_a_run_stay_if_that_is_asked(model, x):
    calls = []

    def hear(x, hook):
        calls.append(hook.name)
        hook.ctx["heard"] = True

    with model.hooks([(EMBED, hear)], reset_hooks_end=False, clear_contexts=True):
        model(x)
    calls += [dict(model.hook_dict[EMBED].ctx)]
    model.run_with_hooks(x, fwd_hooks=[(POS, hear)], reset_hooks_end=False)
    model(x)
    calls += [dict(model.hook_dict[POS].ctx)]
    model.reset_hooks()
    model.run_with_hooks(x, fwd_hooks=[(EMBED, hear)], clear_contexts=True, reset_hooks_end=True)
    calls += [dict(model.hook_dict[EMBED].ctx)]
    heard = {"heard": True}
    assert calls == [EMBED, heard, *2 * [EMBED, POS], heard, EMBED, {}]
    return calls


@row
def what_add_hook_gives_back_detaches_it_once_and_alone(model, tokens):
    calls, point = [], model.hook_dict[EMBED]
    hook = note(calls, "a")
    first, second = point.add_hook(hook), point.add_hook(hook)
    first(), first()
    model(tokens)
    second()
    model(tokens)
    assert calls == ["a"]


# nested


@common
def contexts_take_off_only_their_own_hooks(model, x):
    calls = []
    with model.hooks([(EMBED, note(calls, "outer"))]):
        with model.hooks([(EMBED, note(calls, "inner"))]):
            model(x)
        model(x)
    model(x)
    assert calls == ["outer", "inner", "outer"]
    return calls


@common
def the_same_function_attached_twice_is_taken_off_once_per_context(model, x):
    calls = []
    count = note(calls, 1)
    with model.hooks([(EMBED, count)]):
        with model.hooks([(EMBED, count)]):
            pass
        model(x)
    assert calls == [1]
    return calls


@common
def each_hook_sees_what_the_one_before_it_returned(model, x):
    seen = []
    with model.hooks([(EMBED, times(2)), (EMBED, lambda x, hook: seen.append(x.detach().clone()))]):
        model.run_with_hooks(x, fwd_hooks=[(EMBED, times(5)), (EMBED, lambda x, hook: None)])
        model.run_with_hooks(x, fwd_hooks=[(EMBED, lambda x, hook: seen.append(x.detach() / 2))])
    assert len(seen) == 3 and seen[0].equal(seen[1]) and seen[1].equal(2 * seen[2])
    return [float(value.sum()) for value in seen]


@common
def a_run_with_hooks_inside_of_a_context_adds_to_it(model, x):
    calls = []
    with model.hooks([(EMBED, note(calls, "context"))]):
        model.run_with_hooks(x, fwd_hooks=[(EMBED, note(calls, "run"))])
        model.run_with_cache(x)
    assert calls == ["context", "run", "context"]
    return calls


@row
def a_run_inside_of_a_hook_is_not_heard_by_the_hooks_of_the_outer_run(model, tokens):
    clean, other = model.run_with_cache(tokens)[1], tiny_tokens(seed=5)

    def patch(z, hook):
        return model.run_with_cache(other)[1][hook.name]

    patched = model.run_with_hooks(tokens, fwd_hooks=[("blocks.0.attn.hook_z", patch)])
    source = model.run_with_cache(other)[1]["z", 0]
    assert patched.equal(model.run_with_hooks(tokens, fwd_hooks=[
        ("blocks.0.attn.hook_z", lambda z, hook: source)]))  # fmt: skip
    busy = []

    def look_elsewhere(x, hook):
        busy.append(hook.name)
        if len(busy) == 1:
            model.run_with_hooks(other, fwd_hooks=[(LATE, times(2.0))])

    with model.hooks([("blocks.0.hook_resid_mid", look_elsewhere)]):
        _, cache = model.run_with_cache(tokens)
    assert len(busy) == 2 and all(cache[name].equal(clean[name]) for name in clean)


@row
def a_plain_call_inside_of_a_hook_belongs_to_the_run(model, tokens):
    calls = []

    def once_more(x, hook):
        calls.append(hook.name)
        if len(calls) == 1:
            model(tokens)

    model.run_with_hooks(tokens, fwd_hooks=[(EMBED, once_more)])
    assert calls == [EMBED, EMBED]


# conditional


@common
def a_hook_may_act_on_some_calls_only(model, x):
    calls, plain = [], model(x)

    def every_other(activation, hook):
        calls.append(len(calls))
        return activation * 2 if len(calls) % 2 == 0 else None

    with model.hooks([(EMBED, every_other)]):
        same = [bool(model(x).equal(plain)) for _ in range(4)]
    assert same == [True, False, True, False]
    return same


@common
def a_hook_may_detach_all_hooks_and_those_of_its_own_point_are_still_called_once(model, x):
    calls = []
    model.add_hook(EMBED, lambda x, hook: model.reset_hooks())
    model.add_hook(EMBED, note(calls, "same point"))
    model.add_hook(POS, note(calls, "later point"))
    model(x), model(x)
    assert calls == ["same point"]
    return calls


@common
def a_hook_may_attach_hooks_which_later_points_hear_at_once(model, x):
    calls = []

    def attach(activation, hook):
        model.add_hook(EMBED, note(calls, "same point"))
        model.add_hook(POS, note(calls, "later point"))

    model.run_with_hooks(x, fwd_hooks=[(EMBED, attach)])
    calls.append("again")
    model(x)
    model.reset_hooks()
    model(x)
    assert calls == ["later point", "again", "same point", "later point"]
    return calls


@row
def a_hook_may_detach_itself(model, tokens):
    calls, detach = [], []

    def once(activation, hook):
        calls.append(1)
        detach[0]()

    detach.append(model.hook_dict[EMBED].add_hook(once))
    model(tokens), model(tokens)
    assert calls == [1]


@row
def a_hook_that_detaches_all_hooks_leaves_those_of_runs_in_progress(model, tokens):
    def reset(activation, hook):
        model.reset_hooks(including_permanent=True)

    wanted, cache = model.run_with_cache(tokens)
    model.add_hook(EMBED, reset)
    logits, kept = model.run_with_cache(tokens)
    assert logits.equal(wanted) and kept.keys() == cache.keys()
    doubled = model.run_with_hooks(tokens, fwd_hooks=[(LATE, times(2))])
    assert doubled.equal(model.run_with_hooks(tokens, fwd_hooks=[(EMBED, reset), (LATE, times(2))]))


# backward


@common
def backward_hooks_fire_from_the_end_and_in_order_of_attaching(model, x):
    calls = []
    pairs = [(EMBED, note(calls, "a")), (EMBED, note(calls, "b")), (POS, note(calls, "pos"))]
    with model.hooks(bwd_hooks=pairs):
        model.add_hook(EMBED, note(calls, "first"), "bwd", prepend=True)
        model(x).sum().backward()
    model.reset_hooks()
    model(x).sum().backward()
    assert [word for word in calls if word != "pos"] == ["first", "a", "b"]
    return calls


@row
def backward_hooks_of_a_run_fire_whenever_it_is_differentiated(model, tokens):
    calls = []
    loss = model.run_with_hooks(tokens, "loss", bwd_hooks=[(LATE, note(calls, "bwd"))])
    other = model(tokens, "loss")
    assert not any(point.has_active_hooks for point in model.hook_dict.values())
    loss.backward(retain_graph=True), other.backward(), loss.backward()
    assert calls == ["bwd", "bwd"]


@row
def a_backward_hook_may_replace_the_gradient(model, tokens):
    zero = [("blocks.1.hook_attn_out", lambda grad, hook: torch.zeros_like(grad))]
    model.run_with_hooks(tokens, "loss", bwd_hooks=zero).backward()
    assert model.blocks[1].attn.W_V.grad.eq(0).all()
    assert model.blocks[0].attn.W_V.grad.ne(0).any()


@common
def a_backward_hook_may_return_the_gradient_in_a_tuple_of_one(model, x):
    def gradient(replace):
        got = []
        model.add_hook(EMBED, lambda grad, hook: got.append(grad.sum().item()), "bwd")
        model.add_hook(POS, replace, "bwd")
        model(x).sum().backward()
        model.reset_hooks()
        return got

    once, twice = gradient(lambda grad, hook: grad), gradient(lambda grad, hook: (2 * grad,))
    assert twice == pytest.approx([2 * value for value in once])
    return [2 * value / value for value in once]


@row
def a_backward_hook_that_returns_another_thing_is_named(model, tokens):
    for wrong, words in ((3, "'hook_embed' returned int"), ((), "returned tuple"),
                         (torch.zeros(2), "the gradient is")):  # fmt: skip
        with (pytest.raises((TypeError, ValueError), match=words),
              model.hooks(bwd_hooks=[(EMBED, lambda grad, hook, wrong=wrong: wrong)])):  # fmt: skip
            model(tokens).sum().backward()


@row
def a_backward_hook_where_no_gradient_flows_is_refused(model, tokens):
    with torch.no_grad(), pytest.raises(ValueError, match="no gradient flows there"):
        model.run_with_hooks(tokens, bwd_hooks=[(EMBED, print)])


@row
def a_backward_hook_sees_the_gradient_before_a_later_write_in_place(model, tokens):
    """resid_post of block 0 and resid_pre of block 1 are one tensor. Writing into the second must
    not change the first."""
    grads = {}
    for kind, edit in (("returned", times(2.0)), ("written", lambda x, hook: x.mul_(2.0))):
        keep = [("blocks.0.hook_resid_post", lambda g, hook, kind=kind: grads.update({kind: g}))]
        with model.hooks([("blocks.1.hook_resid_pre", edit)], keep):
            model(tokens, "loss").backward()
    assert torch.allclose(grads["returned"], grads["written"], rtol=1e-12, atol=1e-12)


# exceptions


@common
def an_exception_in_a_hook_comes_through_and_takes_the_hooks_of_its_run_along(model, x):
    calls = []
    with pytest.raises(Broken, match=POS):
        model.run_with_hooks(x, fwd_hooks=[(EMBED, note(calls, "run")), (POS, fail)])
    with pytest.raises(Broken, match=POS), model.hooks([(EMBED, note(calls, "in")), (POS, fail)]):
        model(x)
    with pytest.raises(Broken), model.hooks([(POS, fail)]):
        model.run_with_cache(x)
    model(x)
    assert calls == ["run", "in"]
    return calls


@common
def an_exception_in_nested_contexts_takes_off_as_many_as_it_passes(model, x):
    calls = []
    with model.hooks([(EMBED, note(calls, "outer"))]):
        with pytest.raises(Broken), model.hooks([(EMBED, note(calls, "inner")), (POS, fail)]):
            model(x)
        model(x)
    model(x)
    assert calls == ["outer", "inner", "outer"]
    return calls


@row
def an_exception_anywhere_in_a_run_leaves_no_hook(model, tokens):
    for name in model.hook_dict:
        with pytest.raises(Broken, match=name):
            model.run_with_hooks(tokens, fwd_hooks=[(name, fail)])
        assert not any(point.has_active_hooks for point in model.hook_dict.values())
    for wrong in (tokens + 99, tokens.expand(3, -1).repeat(1, 9), None):
        for run in (model.run_with_hooks, model.run_with_cache):
            with pytest.raises((ValueError, TypeError)):
                run(wrong)


@row
def an_interrupt_leaves_no_hook(model, tokens):
    def interrupt(activation, hook):
        raise KeyboardInterrupt

    for run in (model.run_with_cache, model):
        with pytest.raises(KeyboardInterrupt), model.hooks([("*hook_z", interrupt)]):
            run(tokens)
    with pytest.raises(KeyboardInterrupt):
        model.run_with_hooks(tokens, fwd_hooks=[("*hook_z", interrupt)], bwd_hooks=[(LATE, fail)])


@row
def an_unknown_name_attaches_none_of_the_others(model, tokens):
    for attach in (model.hooks, lambda pairs: model.run_with_hooks(tokens, fwd_hooks=pairs)):
        with pytest.raises(KeyError, match="nonsense"), attach([(EMBED, fail), ("nonsense", fail)]):
            pass


@row
def an_exception_in_a_backward_hook_comes_through_and_spoils_no_later_gradient(model, tokens):
    model(tokens, "loss").backward()
    right = model.blocks[0].attn.W_V.grad
    for inside in (True, False):
        model.zero_grad()
        with pytest.raises(Broken, match=LATE):
            if inside:
                with model.hooks(bwd_hooks=[(LATE, fail)]):
                    model(tokens, "loss").backward()
            else:
                model.run_with_hooks(tokens, "loss", bwd_hooks=[(LATE, fail)]).backward()
        model.zero_grad()
        model(tokens, "loss").backward()
        assert model.blocks[0].attn.W_V.grad.equal(right)


# in place


@row
def writing_in_place_under_grad_gives_the_right_gradient_or_none(model, tokens):
    """Torch refuses to differentiate an overwritten tensor. The gradient must never be wrong."""

    def gradient(name, edit):
        model.zero_grad()
        loss = model.run_with_hooks(tokens, "loss", fwd_hooks=[(name, edit)])
        loss.backward()
        return loss.detach(), model.blocks[0].attn.W_V.grad, model.W_E.grad

    refused = []
    for name in model.hook_dict:
        if name == "hook_tokens":
            continue
        expected = gradient(name, times(1.5))
        try:
            written = gradient(name, lambda x, hook: x.mul_(1.5).add_(0.0))
        except RuntimeError as error:
            assert "modified by an inplace operation" in str(error)
            refused.append(name)
            continue
        for got, wanted in zip(written, expected, strict=True):
            assert torch.allclose(got, wanted, rtol=1e-10, atol=1e-10), name
    assert {name.rpartition(".")[2] for name in refused} <= {"hook_scale", "hook_pattern", "hook_z"}


@row
def inputs_that_others_read_too_are_written_to_in_a_copy(model, tokens):
    """Zeroing the input of Q does not change K and V. Zeroing the input of the MLP does not change
    the stream. The positions of the model and the tokens of the caller do not change."""
    given, clean = tokens.clone(), model.run_with_cache(tokens)[1]
    untouched = {"blocks.0.hook_q_input": ["blocks.0.attn.hook_k", "blocks.0.attn.hook_v"],
                 "blocks.0.hook_mlp_in": ["blocks.0.hook_resid_mid"],
                 "hook_pos_embed": ["hook_embed"], "hook_tokens": []}  # fmt: skip
    for name, others in untouched.items():
        with model.hooks([(name, lambda x, hook: x.zero_())]), torch.no_grad():
            _, cache = model.run_with_cache(tokens, names_filter=["*resid_post", *others, name])
        assert cache[name].eq(0).all() and not cache[LATE].equal(clean[LATE])
        for other in others:
            assert torch.allclose(cache[other], clean[other], rtol=1e-12, atol=1e-12), other
    assert tokens.equal(given)


@row
def a_cached_tensor_is_not_changed_by_a_later_hook_that_writes_in_place(model, tokens):
    clean = model.run_with_cache(tokens)[1]
    with model.hooks([("blocks.1.hook_resid_pre", lambda x, hook: x.zero_())]):
        _, cache = model.run_with_cache(tokens)
    assert cache["resid_post", 0].equal(clean["resid_post", 0])
    assert cache["resid_pre", 1].eq(0).all()


@row
def nor_by_a_hook_of_torch_on_a_module(model, tokens):
    clean = model.run_with_cache(tokens)[1]
    handle = model.blocks[0].register_forward_hook(lambda module, args, resid: resid.zero_())
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    handle.remove()
    assert cache["resid_post", 0].equal(clean["resid_post", 0])
    assert cache["resid_pre", 1].eq(0).all()


@row
def hooks_of_torch_on_a_point_are_listening_too(model, tokens):
    """nnsight and others attach with register_forward_hook: hook_pattern must fire for them too."""
    seen = []
    point = model.blocks[0].attn.hook_pattern
    handle = point.register_forward_hook(lambda module, args, output: seen.append(output))
    model(tokens)
    handle.remove()
    assert len(seen) == 1 and torch.allclose(seen[0].sum(-1), seen[0].new_ones(3, 3, 7))


# generators


def holding(model, calls, word):
    """A context that stays open between its steps."""
    with model.hooks([(EMBED, note(calls, word))]):
        yield model
        yield model


@row
def contexts_left_out_of_order_take_off_only_their_own(model, tokens):
    calls = []
    first, second = holding(model, calls, "first"), holding(model, calls, "second")
    next(first), next(second)
    model(tokens)
    first.close()
    model(tokens)
    second.close()
    model(tokens)
    assert calls == ["first", "second", "second"]


@row
def a_generator_that_is_dropped_thrown_into_or_never_begun_leaves_no_hook(model, tokens):
    calls = []
    for end in ("dropped", "thrown into", "never begun", "in a cycle"):
        held = holding(model, calls, end)
        if end != "never begun":
            next(held)
        if end == "thrown into":
            with pytest.raises(Broken):
                held.throw(Broken)
        if end == "in a cycle":
            knot = [held]
            knot.append(knot)
            del knot
        del held
        gc.collect()
        model(tokens)
    assert calls == []


@row
def a_context_that_is_never_entered_attaches_nothing(model, tokens):
    calls = []
    context = model.hooks([(EMBED, note(calls, "a"))])
    model(tokens)
    with context:
        model(tokens)
    with pytest.raises(Exception, match=r"generator|attribute"), context:
        pass
    assert calls == ["a"]


@row
def a_run_inside_of_a_generator_that_holds_hooks_hears_them(model, tokens):
    calls, held = [], None

    def begin(x, hook):
        nonlocal held
        held = holding(model, calls, "held")
        next(held)

    model.run_with_hooks(tokens, fwd_hooks=[(EMBED, begin)])
    model.run_with_cache(tokens)
    held.close()
    model(tokens)
    assert calls == ["held"]


# threads


@row
def runs_of_two_threads_at_once_do_not_hear_each_other(model, tokens):
    """Each run waits in its middle until the other run is in its middle."""
    others, name = tiny_tokens(seed=5), "blocks.0.attn.hook_z"
    alone = [model.run_with_hooks(tokens, fwd_hooks=[(name, times(0.5))]),
             model.run_with_hooks(others, fwd_hooks=[(name, times(3.0))])]  # fmt: skip
    caches = [model.run_with_cache(rows)[1] for rows in (tokens, others)]
    both = Barrier(2, timeout=30)

    def edited(rows, factor):
        def edit(z, hook):
            both.wait()
            return z * factor

        return model.run_with_hooks(rows, fwd_hooks=[(name, edit)])

    def wait(z, hook):
        both.wait()

    with ThreadPoolExecutor(2) as pool:
        for got, wanted in zip(pool.map(edited, (tokens, others), (0.5, 3.0)), alone, strict=True):
            assert got.equal(wanted)
        with model.hooks([(name, wait)]):
            cached = list(pool.map(model.run_with_cache, (tokens, others)))
    for (_, got), wanted in zip(cached, caches, strict=True):
        assert set(got) == set(wanted) and all(
            torch.allclose(got[key], wanted[key], rtol=1e-12, atol=1e-12) for key in got
        )


@row
def a_run_of_another_thread_hears_hooks_of_the_model(model, tokens):
    """The limit: `hooks` and `add_hook` belong to the model, so they act in other threads too."""
    calls = []
    with ThreadPoolExecutor(1) as pool, model.hooks([(EMBED, note(calls, "context"))]):
        pool.submit(model, tokens).result()
    assert calls == ["context"]


@row
def threads_that_attach_and_detach_all_the_time_lose_and_leave_nothing(model, tokens):
    before, rows = sys.getswitchinterval(), [tiny_tokens(seed=seed) for seed in range(3)]
    wanted = [model.run_with_hooks(row, fwd_hooks=[(EMBED, times(2.0))]) for row in rows]

    def busy(i):
        for _ in range(6):
            with model.hooks([("*", lambda x, hook: None)]):
                got = model.run_with_hooks(rows[i], fwd_hooks=[(EMBED, times(2.0))])
                assert torch.allclose(got, wanted[i], rtol=1e-12, atol=1e-12)
            _, cache = model.run_with_cache(rows[i], names_filter="*resid_post")
            assert len(cache) == 2

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(busy, range(3)))
    finally:
        sys.setswitchinterval(before)


def hooks_of_torch(model):
    for module in model.modules():
        yield from (*module._forward_hooks, *module._forward_pre_hooks, *module._backward_hooks)
    for weight in model.parameters():
        yield from weight._backward_hooks or ()


@pytest.mark.parametrize("scenario", ROWS, ids=lambda scenario: scenario.__name__)
def test_nothing_is_left_behind(scenario):
    model, tokens = tiny(d_mlp=6, act_fn="gelu"), tiny_tokens()
    logits = model(tokens)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    scenario(model, tokens)
    points = model.hook_dict.values()
    assert all(
        hook.is_permanent for point in points for hook in (*point.fwd_hooks, *point.bwd_hooks)
    )
    model.reset_hooks(including_permanent=True)
    assert not any(
        point.has_active_hooks or point.fwd_hooks or point.bwd_hooks or point.ctx
        for point in points
    )
    assert not list(hooks_of_torch(model))
    assert all(weight.equal(weights[name]) for name, weight in model.state_dict().items())
    assert model(tokens).equal(logits)
