"""Every method finds the known circuits, and reports none where there is none."""

import numpy as np
import pytest
import torch

from analyses import Task, discovery, figures, induction_task, metrics, prompts
from circuits import GPT, ground_truth
from circuits.ground_truth import AT, BAY, BOS, IN, KEEP, MIND
from tests.conftest import tiny, tiny_tokens

SIZE = {"d_vocab": 12, "n_ctx": 16}
SHARP = {"sharpness": 40.0}  # so that slopes are not lost in rounding, see the test of saturation


def on_repeats(model: GPT) -> Task:
    return induction_task(model, 7)


def on_threes(model: GPT) -> Task:
    """A B C A B against the next tokens: the virtual head predicts the token two positions back."""
    clean = prompts.random_tokens(model, 3, times=2, batch=6)[:, :-1]
    other = (clean + 1) % model.cfg.d_vocab
    return Task(model, clean, other, metrics.logit_difference(clean[:, 3], other[:, 3]))


def on_skip_trigrams(model: GPT) -> Task:
    """keep ... in -> mind, against two tokens that nothing reads."""
    clean = torch.tensor([[BOS, KEEP, filler, last] for filler in (9, 10, 11) for last in (IN, AT)])
    other = clean.clone()
    other[:, [1, 3]] = torch.tensor([8, 7])
    right = torch.tensor([MIND, BAY] * 3)
    return Task(model, clean, other, metrics.logit_difference(right, other[:, 3]))


def built(name: str) -> tuple[Task, tuple[tuple[str, str], ...]]:
    induction = ground_truth.Induction(**SIZE, **SHARP).edges
    match name:
        case "induction":
            return on_repeats(ground_truth.Induction(**SIZE, **SHARP).model), induction
        case "disguised":
            model = ground_truth.rotated(ground_truth.Induction(**SIZE, **SHARP).model)
            return on_repeats(ground_truth.regauged(model)), induction
        case "pointer_induction":
            model = ground_truth.PointerInduction(**SIZE, **SHARP).model
            return on_repeats(model), ground_truth.PointerInduction(**SIZE, **SHARP).edges
        case "virtual_head":
            model = ground_truth.VirtualHead(**SIZE).model
            return on_threes(model), ground_truth.VirtualHead(**SIZE).edges
        case "skip_trigram_bug":
            answers = ground_truth.SkipTrigramBug(**SIZE, **SHARP)
            model = answers.model
            return on_skip_trigrams(model), answers.edges
        case "smeared_induction":
            model = ground_truth.SmearedInduction(**SIZE, **SHARP).model
            return on_repeats(model), ground_truth.SmearedInduction(**SIZE, **SHARP).edges
    answers = ground_truth.InductionAmongDistractors(**SIZE, **SHARP, distractors=3)
    model = answers.model
    return on_repeats(model), answers.edges


BUILT = ("induction", "disguised", "pointer_induction", "virtual_head", "skip_trigram_bug",
         "smeared_induction", "among_distractors")  # fmt: skip
METHODS = {
    "exact": discovery.exact,
    "EAP": discovery.eap,
    "EAP-IG inputs": discovery.eap_ig,
    "EAP-IG activations": lambda task: discovery.eap_ig(task, 8, along="activations"),
    "ACDC": lambda task: discovery.acdc_scores(task, [0.1]),
}


@pytest.mark.parametrize("name", BUILT)
def test_every_method_finds_the_circuit_that_was_built(name):
    task, edges = built(name)
    truth = discovery.circuit(task.model, edges)
    areas = {way: discovery.curve(scores(task), truth).attrs["auc"]
             for way, scores in METHODS.items()}  # fmt: skip
    print(name, areas)
    assert all(area > 1 - 1e-12 for area in areas.values()), areas
    assert discovery.top(discovery.exact(task), len(edges)).equals(truth)
    assert discovery.greedy(discovery.eap_ig(task), len(edges)).equals(truth)
    assert discovery.significant_edges(discovery.exact(task)).equals(truth) or len(task.clean) < 12


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


def test_slopes_are_blind_where_attention_is_saturated_and_their_mean_is_not():
    model = ground_truth.Induction(**SIZE).model  # sharpness 100
    task = on_repeats(model)
    truth = discovery.circuit(model, ground_truth.Induction(**SIZE).edges)
    slope = discovery.eap(task).mean("example")
    assert (abs(slope.sel(receiver=["L1H0.Q", "L1H0.K"])).fillna(0.0) < 1e-12).all()
    assert discovery.curve(discovery.eap_ig(task), truth).attrs["auc"] > 1 - 1e-12


def random_task(seed: int, n_heads: int = 3) -> Task:
    model = tiny(seed, n_heads=n_heads, d_head=4, d_model=12)
    clean, other = (tiny_tokens(12, 5, seed=1000 * i + seed) for i in (1, 2))
    right, wrong = tiny_tokens(2, 12, seed=seed)
    return Task(model, clean, other, metrics.logit_difference(right, wrong))


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


def test_acdc_cuts_nothing_everything_and_what_costs_least():
    task = random_task(3, n_heads=1)
    whole = discovery.edges(task.model)
    assert discovery.acdc(task, -np.inf).equals(whole)
    assert not discovery.acdc(task, np.inf).any()
    some = discovery.acdc(task, 0.05)
    apart = metrics.divergence(discovery.logits(task, whole))
    assert 0 < some.sum() < whole.sum()
    assert np.isclose(some.attrs["distance"], apart(discovery.logits(task, some)).mean())
    assert discovery.connected_part(some).sum() <= some.sum()


def test_greedy_circuits_are_nested_and_lead_to_the_logits():
    effect = discovery.eap(random_task(2))
    sizes = [discovery.greedy(effect, n) for n in (1, 4, 12)]
    for n, kept in zip((1, 4, 12), sizes, strict=True):
        assert kept.sum() == n
        read = {name.partition(".")[0] for name in kept.receiver.values[kept.any("sender")]}
        assert read <= {"logits", *kept.sender.values[kept.any("receiver")]}
    assert not (sizes[0] & ~sizes[1]).any() and not (sizes[1] & ~sizes[2]).any()


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


def test_the_figure_of_a_known_circuit_holds():
    drawing = figures.draw("circuits/known")
    assert drawing.verdict.holds, drawing.verdict.here
