"""The port: code written for HookedTransformer runs here, with equal numbers, or is refused."""

import contextlib
import io
from pathlib import Path

import torch

from circuits.ground_truth import induction_among_distractors

SCRIPT = Path(__file__).with_name("ported_script.py")


def hooked_transformer_weights() -> dict[str, torch.Tensor]:
    """The state dict that HookedTransformer.state_dict() gives of an induction circuit among random
    heads, with some noise on every weight and bias, and with its masks."""
    model = induction_among_distractors(20, 60, distractors=3)
    generator = torch.Generator().manual_seed(0)
    weights = dict(model.state_dict())
    for layer in range(2):
        for letter in "QKV":
            weights[f"blocks.{layer}.attn.b_{letter}"] = torch.zeros(4, 60)
        weights[f"blocks.{layer}.attn.b_O"] = torch.zeros(120)
    weights["unembed.b_U"] = torch.zeros(20)
    noisy = {
        name: w.double() + 0.003 * torch.randn(w.shape, generator=generator, dtype=torch.float64)
        for name, w in sorted(weights.items())
    }
    masks = {}
    for layer in range(2):
        masks[f"blocks.{layer}.attn.mask"] = torch.ones(60, 60).tril().bool()
        masks[f"blocks.{layer}.attn.IGNORE"] = torch.tensor(-torch.inf)
    return {**noisy, **masks}
