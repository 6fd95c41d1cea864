"""The same model in other coordinates: what leaves its logits and every honest score as they were:
order of heads, and each gauge freedom of a head alone (the erratum's score heeds one of them).
Rotation of the stream is ground_truth.rotated."""

import torch

from circuits import GPT


def QK_gauged(model: GPT, seed: int = 6) -> GPT:
    """(W_Q M, W_K M^-T) with another invertible M for every head."""
    with torch.no_grad():
        for i, attn in enumerate(block.attn for block in model.blocks):
            M = _invertible(model, seed + i)
            attn.W_Q.copy_(attn.W_Q @ M)
            attn.W_K.copy_(attn.W_K @ M.inverse().mT)
    return model


def OV_gauged(model: GPT, seed: int = 7) -> GPT:
    """(W_V M, M^-1 W_O) with another invertible M for every head."""
    with torch.no_grad():
        for i, attn in enumerate(block.attn for block in model.blocks):
            M = _invertible(model, seed + i)
            attn.W_V.copy_(attn.W_V @ M)
            attn.W_O.copy_(M.inverse() @ attn.W_O)
    return model


def reordered(model: GPT, order: list[int]) -> GPT:
    """The heads of every layer in another order."""
    with torch.no_grad():
        for attn in (block.attn for block in model.blocks):
            for W in (attn.W_Q, attn.W_K, attn.W_V, attn.W_O):
                W.copy_(W[order].clone())
    return model


def _invertible(model: GPT, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (model.cfg.n_heads, model.cfg.d_head, model.cfg.d_head)
    return 2 * torch.eye(shape[1]) + 0.5 * torch.randn(
        shape, generator=generator, dtype=torch.float64
    )
