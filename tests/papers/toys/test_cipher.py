"""What is asked of a model is the second passage, and a model that translates knows all of it."""

import torch

from analyses.papers.toys import cipher, descent
from circuits import ground_truth


def test_a_model_that_translates_is_right_and_one_that_repeats_is_not():
    data = cipher.passages(seed=3)
    repeats = ground_truth.Induction(data.d_vocab).model
    assert cipher.accuracy(repeats, data) < 0.2
    seek = repeats.blocks[1].attn
    with torch.no_grad():
        seek.W_K[0, data.d_vocab : 2 * data.d_vocab] = seek.W_K[0, data.d_vocab :][data.cipher]
        repeats.unembed.W_U.copy_(repeats.unembed.W_U[:, data.cipher.argsort()])
    assert cipher.accuracy(repeats, data) > 0.7  # tokens come twice in a passage: some is luck
    assert cipher.accuracy(repeats, cipher.passages(redrawn=True, seed=3)) < 0.2


def test_unseen_passages_have_the_same_cipher():
    data = cipher.passages(seed=4)
    other = descent.unseen(data)
    assert other.cipher.equal(data.cipher) and other.seed == data.seed + 1
    assert not other.batch(0, 4).equal(data.batch(0, 4))
