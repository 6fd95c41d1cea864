"""The layers around attention."""

import torch

from tests.conftest import tiny


def test_sinusoids_have_the_scale_and_wavelengths_of_the_config():
    model = tiny(positional_embedding_type="sinusoidal", sinusoid_base=100.0, sinusoid_scale=3.0)
    pairs = model.W_pos.double().unflatten(1, (6, 2))
    assert torch.allclose(
        pairs.norm(dim=-1), torch.full((16, 6), 3.0, dtype=torch.float64), atol=1e-6
    )
    angle = torch.atan2(pairs[1, :, 0], pairs[1, :, 1])
    assert torch.allclose(angle, 100.0 ** (-torch.arange(6, dtype=torch.float64) / 6), atol=1e-6)
    assert "pos_embed.W_pos" not in model.state_dict()
