"""The disentangled model, solved by hand and at zero, and the posterior against counts."""

import math

import pytest
import torch

from analyses.papers.toys import descent, nichani
from circuits.data import CausalGraph, random_parents


def solved(data, sharpness=40.0):
    """The disentangled model that solves a graph: layer 1 is the graph, layer 2 matches."""
    model, V = nichani.Disentangled(data.d_vocab, len(data.parents)), data.d_vocab
    with torch.no_grad():
        for i, parent in enumerate(data.parents[:-1]):
            if parent is not None:
                model.A1[V + i, V + parent] = sharpness
        model.matching.copy_(sharpness * torch.eye(V))
        model.saying.copy_(sharpness * torch.eye(V))
    return model


def test_the_disentangled_model_set_to_the_graph_says_what_its_children_said():
    data = CausalGraph([None, 0, 0, 1, None], 4)
    model = solved(data)
    found = nichani.parents_found(model, data)
    assert found == {"parents": 1.0, "attention": pytest.approx(1.0)}
    logits = model(torch.tensor([[3, 1, 1, 2, 3], [3, 1, 1, 2, 1]])).detach()
    assert logits.argmax(-1).tolist() == [1, 2]  # 3 is the parent of both 1s, and 1 that of 2
    # Two children, and the root, which hands itself over: 1 is said by two of three.
    assert float(logits[0, 1]) == pytest.approx(40 * 2 / 3, rel=1e-4)


def test_a_zero_model_attends_alike_and_knows_nothing():
    data = CausalGraph(random_parents(8, seed=3), 4)
    model = nichani.Disentangled(4, 8)
    alike = [1 / (i + 1) for i in range(1, 7)]
    assert nichani.parents_found(model, data)["attention"] == pytest.approx(sum(alike) / 6)
    rows = data.batch(0, 512)
    p, bayes = descent.true_odds(data, rows[:, -2]), nichani.posterior(rows[:, :-1], data)
    told = float(-(p * bayes.log()).sum(-1).mean())
    assert nichani.excess(model, data, batch=512) == pytest.approx(math.log(4) - told, rel=1e-4)
    assert told < math.log(4)


def test_the_posterior_counts_children_of_equals_of_the_last_token():
    data = CausalGraph([None, 0, 0, None, 3, None], 3, alpha=0.5)
    rows = torch.tensor([[1, 0, 2, 1, 0, 1], [1, 0, 2, 2, 0, 2]])
    counted = torch.tensor([[2.5, 0.5, 1.5], [1.5, 0.5, 0.5]])
    assert torch.allclose(nichani.posterior(rows, data), counted / counted.sum(-1, keepdim=True))
