"""Hook points tell what they are, and what returns the wrong thing to them."""

import pytest
import torch

from circuits.hooks import HookPoint
from tests.conftest import tiny, tiny_tokens
from tests.hooks.comparing import no_hooks_left, same


def test_writing_into_tokens_spares_the_callers_tensor():
    model, tokens = tiny(), tiny_tokens()
    before = tokens.clone()
    model.run_with_hooks(tokens, fwd_hooks=[("hook_tokens", lambda t, hook: t.zero_())])
    assert tokens.equal(before)


def test_a_hook_that_returns_the_wrong_shape_or_kind_is_named():
    model, tokens = tiny(), tiny_tokens()
    with pytest.raises(ValueError, match=r"'blocks.0.attn.hook_z' returned shape \[3, 7, 3\]; the"):
        model.run_with_hooks(
            tokens, fwd_hooks=[("blocks.0.attn.hook_z", lambda z, hook: z[..., 0])]
        )
    with pytest.raises(TypeError, match="returned float; it must return None or a tensor"):
        model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", lambda x, hook: 1.0)])


def test_backward_hooks_see_the_gradient_that_autograd_gives():
    model, tokens, seen = tiny(d_mlp=6, act_fn="gelu"), tiny_tokens(), {}

    def keep(grad, hook):
        seen[hook.name] = grad.clone()

    def through(name):
        """The gradient of the loss by autograd, with the activation made a leaf."""
        leaf = []

        def tap(activation, hook):
            leaf.append(activation.detach().clone().requires_grad_())
            return leaf[0]

        loss = model.run_with_hooks(tokens, "loss", fwd_hooks=[(name, tap)])
        return torch.autograd.grad(loss, leaf[0])[0]

    names = [name for name in model.hook_dict if name != "hook_tokens" and "ln1" not in name]
    for name in names:
        model.run_with_hooks(tokens, "loss", bwd_hooks=[(name, keep)]).backward()
        assert same(seen[name], through(name)), name
    assert no_hooks_left(model)


def test_a_point_without_hooks_returns_the_same_tensor():
    x = torch.zeros(2)
    assert HookPoint()(x) is x


def test_layer_and_ctx_are_there_for_hooks():
    model = tiny()
    point = model.hook_dict["blocks.1.attn.hook_z"]
    assert point.layer() == 1
    model.add_hook(point.name, lambda z, hook: hook.ctx.update(seen=True))
    model(tiny_tokens())
    assert point.ctx == {"seen": True}
    model.reset_hooks()
    assert point.ctx == {}
    with pytest.raises(ValueError, match="'hook_embed' is not in a block"):
        model.hook_dict["hook_embed"].layer()
