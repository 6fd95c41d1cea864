"""The next-token loss of logits."""

import torch

from tests.conftest import tiny_tokens


def test_the_loss_is_the_cross_entropy_of_the_next_token(variant):
    tokens = tiny_tokens()
    logits, loss = variant(tokens, return_type="both", loss_per_token=True)
    expected = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
    )
    assert torch.allclose(loss.flatten(), expected)
    assert torch.allclose(variant(tokens, return_type="loss"), expected.mean())
