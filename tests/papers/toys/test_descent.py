"""The one loop of all toys is gradient descent, and unseen sequences are of the same process."""

import pytest
import torch

from analyses.papers.toys import descent
from circuits.data import CategoryLines, CausalGraph, MarkovChains, random_parents


def test_learning_is_gradient_descent_seen_at_its_steps():
    x = torch.tensor([4.0], requires_grad=True)
    opt, data = torch.optim.SGD([x], lr=0.25), MarkovChains(3, length=5)

    def learned(steps: int, loss=lambda rows: x.square().sum()):
        return descent.learn(
            data, steps, loss, [opt], lambda: {"x": float(x)}, batch=2, every=2,
            schedule=lambda step: 1.0 if step < 3 else 0.0,
        )  # fmt: skip

    run = learned(5)
    assert run.step.values.tolist() == [0, 2, 4, 5]
    assert run.sel(what="x").values.tolist() == [4.0, 1.0, 0.5, 0.5]  # halved by each of 3 steps
    with pytest.raises(ValueError, match="got steps=-1"):
        learned(-1)
    seen = []
    learned(3, lambda rows: seen.append(rows) or x.sum())
    assert all(torch.equal(rows, data.batch(step, 2)) for step, rows in enumerate(seen))


@pytest.mark.parametrize(
    "data",
    [MarkovChains(3, length=9, order=2, seed=4),
     CausalGraph(random_parents(5), 4, alpha=0.5, seed=4), CategoryLines(lines=3, seed=4)],
)  # fmt: skip
def test_unseen_sequences_are_those_of_the_next_seed(data):
    other = descent.unseen(data)
    assert (data.seed, other.seed) == (4, 5) and type(other) is type(data)
    assert vars(other) == {**vars(data), "seed": 5}
    assert not torch.equal(other.batch(0, 8), data.batch(0, 8))


def test_true_odds_are_the_rows_of_each_chain():
    data = MarkovChains(3, length=6, seed=1)
    rows, chains = data.batch(0, 4), data.transitions(0, 4).float()
    p = descent.true_odds(data, rows)
    assert p.shape == (4, 6, 3)
    assert all(torch.equal(p[b, t], chains[b, rows[b, t]]) for b in range(4) for t in range(6))
