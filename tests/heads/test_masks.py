"""Masks mark the entries that they are named for."""

import torch

from analyses import masks


def test_masks_of_some_destinations_are_rows_of_the_whole():
    tokens = torch.randint(0, 4, (3, 9), generator=torch.Generator().manual_seed(0))
    for mask in (rule.mask for rule in masks.BEHAVIOURS.values()):
        whole = mask(tokens)
        assert whole.equal(torch.cat([mask(tokens, dests=slice(0, 4)), whole[:, 4:]], 1))
        assert whole[:, 4:7].equal(mask(tokens, dests=slice(4, 7)))


def test_masks_mark_what_they_say():
    tokens = torch.tensor([[0, 5, 6, 5, 5, 7]])
    assert masks.to_duplicates(tokens)[0].nonzero().tolist() == [[3, 1], [4, 1], [4, 3]]
    assert masks.to_successors(tokens)[0].nonzero().tolist() == [[3, 2], [4, 2], [4, 4]]
    assert masks.to_offset(tokens, 2)[0].nonzero().tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]
    assert masks.to_first(tokens)[0].all(0).tolist() == [True] + [False] * 5
