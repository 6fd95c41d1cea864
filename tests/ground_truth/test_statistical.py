"""Statistical induction says how often each token followed, as Edelman's minimal model does."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circuits import ground_truth
from tests.conftest import tiny_tokens
from tests.ground_truth.closed_forms import few


@few
@given(st.integers(2, 6), st.floats(0.5, 15.0), st.integers(0, 99))
def test_statistical_induction_says_the_frequencies_of_what_followed(d_vocab, gain, seed):
    circuit = ground_truth.StatisticalInduction(d_vocab, 40, gain=gain)
    tokens = tiny_tokens(batch=4, pos=40, d_vocab=d_vocab, seed=seed)
    assert torch.allclose(circuit.model(tokens), circuit.logits(tokens), atol=1e-6)
    row, at = tokens[0].tolist(), 30
    before = [row[0], *row[:-1]]
    followed = [row[j] for j in range(at + 1) if before[j] == row[at]]
    heard = followed or row[: at + 1]
    shares = [heard.count(token) / len(heard) for token in range(d_vocab)]
    assert circuit.matches(tokens)[0, at] == len(followed)
    assert circuit.frequencies(tokens)[0, at].tolist() == pytest.approx(shares)


def test_statistical_induction_is_edelmans_minimal_model_over_the_number_of_matches():
    """logits_i = sum_(j<=i) (e_i W u_j) e_j, u = softmax(v_(i-j)) e, with v at lag 1 and W = Id."""
    tokens = tiny_tokens(batch=4, pos=40, d_vocab=3)
    circuit = ground_truth.StatisticalInduction(3, 40, gain=1.0)
    model, matches = circuit.model, circuit.matches(tokens)
    e = torch.nn.functional.one_hot(tokens, 3).double()
    lag = torch.arange(40)[:, None] - torch.arange(40)
    v = torch.where(lag == 1, 100.0, 0.0).masked_fill(lag < 0, -math.inf).double()
    minimal = (e @ (v.softmax(-1) @ e).mT).tril() @ e
    matched = matches > 0
    counted = model(tokens) * matches[..., None]
    assert torch.allclose(counted[matched], minimal[matched], atol=1e-6)
    assert minimal[~matched].abs().max() < 1e-6
    _, cache = model.run_with_cache(tokens)
    assert torch.allclose(cache["pattern", 0][:, 0], v.softmax(-1), atol=1e-12)
