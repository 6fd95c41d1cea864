"""A circuit that was built is faithful, complete and minimal, and random models have none."""

import numpy as np
import pytest

from analyses import Task, discovery
from circuits import ground_truth
from tests.causal.discovery.tasks import BUILT, METHODS, SMALL, built, random_task, task_of
from tests.conftest import tiny


def test_faithfulness_goes_from_none_of_the_task_to_all_of_it_with_the_edges():
    task = task_of(tiny(**SMALL))
    scores = {"exact": discovery.exact(task), "EAP": discovery.eap(task)}
    found = discovery.faithfulness_by_edges(
        task, scores, [0, 5, int(discovery.edges(task.model).sum())]
    )
    assert found.dims == ("score", "edges") and found.score.values.tolist() == ["exact", "EAP"]
    np.testing.assert_allclose(found[:, [0, 2]], [[0, 1], [0, 1]], atol=1e-12)
    best = discovery.top(scores["EAP"], 5)
    assert found.sel(score="EAP", edges=5) == discovery.faithfulness(task, best)
    assert best.sum() == 5 and not np.isclose(found[1, 1], found[1, [0, 2]]).any()


@pytest.mark.parametrize("name", BUILT)
def test_the_circuit_that_was_built_is_faithful_complete_and_minimal(name):
    task, edges = built(name)
    truth = discovery.circuit(task.model, edges)
    assert abs(discovery.faithfulness(task, truth) - 1) < 1e-6
    nodes = sorted({sender for sender, _ in edges} - {"embed"})
    alike = discovery.completeness(task, truth, [[], *([node] for node in nodes), nodes])
    assert np.allclose(alike.circuit, alike.model, atol=1e-6)
    assert abs(alike.model[0] - alike.model[-1]) > 1  # and it is about something
    assert (abs(discovery.minimality(task, truth)) > 1).all()
    assert discovery.connected_part(truth).equals(truth)


def test_a_circuit_that_lacks_an_edge_is_not_faithful_and_one_too_large_not_minimal():
    task, edges = built("induction")
    less = discovery.circuit(task.model, edges[1:])
    assert discovery.faithfulness(task, less) < 0.5
    whole = discovery.edges(task.model)
    assert (abs(discovery.minimality(task, whole)) < 1e-6).sum() == int(whole.sum()) - len(edges)
    left = discovery.connected_part(discovery.circuit(task.model, edges[:-1]))
    assert not left.any()  # nothing leads to the logits any more
    missing = discovery.completeness(task, less, [[]])
    assert abs(missing.circuit - missing.model) > 1


def test_random_models_have_no_circuit_to_report():
    effects = [METHODS[way](random_task(seed)) for seed in range(8) for way in ("exact", "EAP")]
    assert (
        sum(bool(discovery.significant_edges(effect).any()) for effect in effects) <= 2
    )  # 0.8 expected


def test_random_models_meet_the_names_of_no_circuit():
    edges, chance = ground_truth.Induction().edges, []
    for seed in range(8):
        task = random_task(seed)
        truth = discovery.circuit(task.model, edges)
        chance.append(discovery.p_of_renaming(discovery.eap(task), truth, permutations=19))
    task, edges = built("among_distractors")
    found = discovery.p_of_renaming(
        discovery.eap(task), discovery.circuit(task.model, edges), permutations=39
    )
    assert sum(p <= 0.05 for p in chance) <= 2 and np.mean(chance) > 0.3 and found < 0.15


def test_the_area_under_the_curve_is_how_often_a_true_edge_is_ahead():
    effect = discovery.eap(random_task(1)).mean("example").round(1)  # with ties
    truth = discovery.circuit(random_task(1).model, ground_truth.Induction().edges)
    size, known = abs(effect.values), truth.values
    mine, others = size[known], size[~known & ~np.isnan(size)]
    ahead = (mine[:, None] > others).mean() + (mine[:, None] == others).mean() / 2
    curve = discovery.curve(effect, truth)
    assert np.isclose(curve.attrs["auc"], ahead)
    last = curve.isel(threshold=-1)
    assert last.recall == last.false_positive_rate == 1
    assert np.isclose(last.precision, known.sum() / (~np.isnan(size)).sum())


def test_bad_scores_and_circuits_are_refused_in_words():
    task = random_task(0)
    whole, effect = discovery.edges(task.model), discovery.eap(task)
    with pytest.raises(ValueError, match="nothing to tell apart"):
        discovery.curve(effect, whole)
    with pytest.raises(ValueError, match="must be boolean edges of the model"):
        discovery.curve(effect, discovery.edges(tiny(n_layers=1)))
    with pytest.raises(KeyError, match=r"no sender 'L9H9'; there are .*'embed'"):
        discovery.drop(whole, ["L9H9"])
    with pytest.raises(ValueError, match="3 examples cannot tell chance from effect"):
        discovery.significant_edges(effect.isel(example=slice(3)))
    still = Task(task.model, task.clean, task.clean, task.metric)
    with pytest.raises(ValueError, match="nothing to be faithful to"):
        discovery.faithfulness(still, whole)
