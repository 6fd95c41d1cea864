"""Memories that are written by hand are recalled, and no others."""

import torch

from analyses.papers.toys import bietti


def test_memories_are_recalled_when_they_are_written_by_hand():
    data = bietti.triggers(12, 2)
    model = bietti.simplified(data, d_model=256)
    assert all(share == 0 for share in bietti.recall(model, data).values())  # ties are no recall
    first, last = (block.attn for block in model.blocks)
    E, P, U = model.W_E, model.W_pos, model.W_U
    with torch.no_grad():
        w_1 = E @ first.W_V[0] @ first.W_O[0]
        first.W_K[0] = P[:-1].T @ P[1:]  # keys of a position: the position after it
        last.W_K[0] = w_1[data.triggers].T @ E[data.triggers]
        last.W_O[0] = (E @ last.W_V[0]).T @ U.T
    recalled = bietti.recall(model, data)
    assert recalled["W_K2"] == 1 and min(recalled.values()) > 0.9
