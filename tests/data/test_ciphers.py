"""The second passage is the first one, token by token through a permutation, or is not."""

import pytest
import torch

from circuits.data import Batches, Ciphered


def test_the_second_passage_is_the_cipher_of_the_first():
    data = Ciphered(13, shortest=4, longest=7, bos=5, seed=2)
    assert isinstance(data, Batches)
    lengths = set()
    for step in range(30):
        rows = data.batch(step, 3)
        n = rows.shape[1] // 2
        lengths.add(n)
        assert (rows[:, 0] == 5).all() and (rows[:, 1:] != 5).all()
        assert data.cipher[rows[:, 1 : n + 1]].equal(rows[:, n + 1 :])
    assert lengths == {4, 5, 6, 7}
    assert data.batch(1, 3).equal(Ciphered(13, shortest=4, longest=7, bos=5, seed=2).batch(1, 3))


def test_the_cipher_is_a_permutation_in_which_bos_alone_stays():
    for seed in range(5):
        cipher = Ciphered(9, shortest=1, longest=1, bos=3, seed=seed).cipher
        assert cipher.sort().values.equal(torch.arange(9))
        assert (cipher == torch.arange(9)).nonzero().flatten().tolist() == [3]
    with pytest.raises(ValueError, match="got d_vocab=2"):
        Ciphered(2, shortest=1, longest=1)


def test_a_redrawn_passage_is_the_same_first_one_and_another_second_one():
    fields = {"shortest": 8, "longest": 8, "seed": 1}
    rows, drawn = Ciphered(20, **fields), Ciphered(20, redrawn=True, **fields)
    ours, other = rows.batch(0, 200), drawn.batch(0, 200)
    assert ours[:, :9].equal(other[:, :9])
    chance = (rows.cipher[other[:, 1:9]] == other[:, 9:]).float().mean()
    assert 0.02 < float(chance) < 0.09  # one in 19
