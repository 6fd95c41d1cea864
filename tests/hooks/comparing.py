"""How tests of hooks compare tensors, and see that no hook is left."""

import torch


def same(a, b, tolerance=1e-10):
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def no_hooks_left(model):
    return not any(point.has_active_hooks for point in model.hook_dict.values())
