"""Hooks are reset by direction, and stay where it is asked."""

import pytest

from tests.hooked_transformer.models import TOKENS, biased

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_hooks_are_reset_by_direction_and_stay_where_it_is_asked():
    model, heard = biased(), []

    def hear(x, hook):
        heard.append(hook.name)
        hook.ctx["heard"] = True

    name = "blocks.0.hook_resid_pre"
    model.add_hook(name, hear)
    model.add_hook(name, hear, "bwd")
    model.reset_hooks(clear_contexts=False, direction="fwd")
    model(TOKENS, return_type="loss").backward()
    assert heard == [name] and model.hook_dict[name].ctx
    model.reset_hooks()
    assert not model.hook_dict[name].has_active_hooks and not model.hook_dict[name].ctx
    heard.clear()
    model.run_with_hooks(TOKENS, fwd_hooks=[(name, hear)], reset_hooks_end=False)
    model.run_with_hooks(TOKENS, fwd_hooks=[(name, hear)], clear_contexts=True)
    assert len(heard) == 3 and not model.hook_dict[name].ctx
    model.reset_hooks()
    model.add_perma_hook(name, hear)
    model.reset_hooks()
    assert model.hook_dict[name].has_active_hooks
    model.reset_hooks(including_permanent=True)
    with model.hooks([(name, hear)], reset_hooks_end=False, clear_contexts=True):
        pass
    assert model.hook_dict[name].has_active_hooks
