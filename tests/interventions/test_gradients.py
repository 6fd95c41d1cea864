"""Slopes are autograd's, and leave the model and the caller's grad mode alone."""

import torch

from circuits.interventions import slopes
from tests.causal.near import METRIC, TOKENS, near
from tests.conftest import tiny


def test_slopes_leave_the_model_and_the_callers_grad_mode_alone():
    model = tiny().requires_grad_(False)
    with torch.no_grad():
        found = slopes(model, TOKENS, ["blocks.0.hook_resid_pre"], METRIC)
        assert not torch.is_grad_enabled()
    resid = near(model, 0.0)["resid_pre", 0].requires_grad_()
    logits = model(resid, start_at_layer=0)[:, -1]
    expected = torch.autograd.grad(METRIC(logits).sum(), resid)[0]
    assert torch.allclose(found["blocks.0.hook_resid_pre"], expected)
    assert not any(point.has_active_hooks for point in model.hook_dict.values())
