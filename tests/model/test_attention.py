"""Attention, and the masks that it obeys."""

import torch

from tests.conftest import tiny_tokens


def test_no_token_sees_a_later_one(variant):
    tokens, changed = tiny_tokens(), tiny_tokens()
    changed[:, 4:] = (changed[:, 4:] + 1) % 29
    assert torch.allclose(variant(tokens)[:, :4], variant(changed)[:, :4], atol=1e-12)
    assert not torch.allclose(variant(tokens)[:, 4:], variant(changed)[:, 4:])
