"""What is ablated is gone, and the rest reacts or keeps its patterns, as by hand."""

import copy

import numpy as np
import pytest
import torch

from analyses import Task, ablation, metrics, patching, prompts
from circuits import GPT, ground_truth, paths
from circuits.interventions import as_hooks, edit, frozen_patterns, means
from circuits.model import Head, every_head
from tests.causal.by_hand import METRIC, TOKENS, by_hand, cache_of
from tests.conftest import tiny, tiny_tokens

OTHER = tiny_tokens(batch=3, pos=8, seed=5)
MLPS = {"normalization_type": "LN", "d_mlp": 7, "act_fn": "gelu"}
LINEAR = {"normalization_type": None, "bias": False, "positional_embedding_type": "standard"}
ROWS = tiny_tokens(batch=5, pos=9)


def ablated(model: GPT, names, *, corrupted=None, replace=None, **how):
    return ablation.ablate(Task(model, TOKENS, corrupted, METRIC, replace=replace), names, **how)


def without_weights(model: GPT, heads=(), neurons=()) -> GPT:
    """The model in which these components write zero."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for layer, head in heads:
            changed.blocks[layer].attn.W_O[head] = 0
        for layer, neuron in neurons:
            changed.blocks[layer].mlp.W_out[neuron] = 0
    return changed


def test_what_is_ablated_together_is_a_model_without_these_weights():
    model = tiny(**MLPS)
    sets = {
        "L0H1": without_weights(model, [(0, 1)]),
        "MLP1N4": without_weights(model, neurons=[(1, 4)]),
        ("MLP1N6", "L0H1", "MLP0N3", "MLP0N5", "L1H2"): without_weights(
            model, [(0, 1), (1, 2)], [(0, 3), (0, 5), (1, 6)]
        ),
    }
    seen = ablated(model, list(sets))
    for row, expected in zip(seen, sets.values(), strict=True):
        assert np.allclose(row, METRIC(expected(TOKENS)).detach()), row.component.item()
    assert np.allclose(seen.base, METRIC(model(TOKENS)).detach())
    assert seen.component.values[-1] == "MLP1N6 + L0H1 + MLP0N3 + MLP0N5 + L1H2"


@pytest.mark.parametrize("kind", ablation.KINDS)
def test_places_values_and_positions_are_as_by_hand(kind):
    model = tiny(**MLPS)
    clean, other = cache_of(model, TOKENS), cache_of(model, OTHER)
    frozen = frozen_patterns(model, clean) if kind != "full" else []
    for name, key, head in [("embed", "embed", None), ("L0H2", ("z", 0), 2),
                            ("L1 attn", ("attn_out", 1), None),
                            ("MLP0", ("mlp_out", 0), None)]:  # fmt: skip
        expected = edit(model, key, means(other, key), head=head, pos=6)
        seen = ablated(model, name, kind=kind, replace="mean", corrupted=OTHER, pos=6)
        assert np.allclose(seen[0], by_hand(model, [*frozen, expected])), name


def test_a_neuron_is_ablated_among_what_its_neighbours_do_with_patterns_kept_or_not():
    model = tiny(**MLPS)
    clean = cache_of(model, TOKENS)
    silent = without_weights(model, neurons=[(0, 3)])
    nothing = edit(silent, ("attn_out", 0), torch.zeros(1, 8, 12, dtype=torch.float64))
    cell = [*frozen_patterns(silent, clean), nothing]
    with torch.no_grad():
        expected = METRIC(silent.run_with_hooks(TOKENS, fwd_hooks=as_hooks(cell)))
    seen = ablated(model, [["MLP0N3", "L0 attn"]], kind="pattern-preserving")
    assert np.allclose(seen[0], expected)


def test_all_heads_of_a_layer_are_its_attention_but_for_the_bias():
    heads = ["L1H0", "L1H1", "L1H2"]
    plain, biased = tiny(bias=False), tiny()
    for kind in ablation.KINDS:
        together, attn = ablated(plain, [heads, "L1 attn"], kind=kind)
        assert np.allclose(together, attn)
    together, attn = ablated(biased, [heads, "L1 attn"])
    only_bias = biased.blocks[1].attn.b_O.detach().expand(1, 8, -1)
    assert np.allclose(together, by_hand(biased, [edit(biased, ("attn_out", 1), only_bias)]))
    assert not np.allclose(together, attn)


def test_a_mean_or_another_example_of_what_never_varies_changes_nothing():
    model, same = tiny(), OTHER[:1].expand(4, -1)
    for replace in ("mean", "resample"):
        seen = ablation.ablate(Task(model, same, replace=replace), ["L0H1", "L1 attn"])
        assert np.allclose(seen, seen.base)
    standard = tiny(positional_embedding_type="standard")
    seen = ablated(standard, "pos", replace="mean", corrupted=OTHER)
    assert np.allclose(seen, seen.base)
    over_all = ablated(standard, "pos", replace="mean", corrupted=OTHER[:, :5], by_position=False)
    assert not np.allclose(over_all, over_all.base)


def test_resampling_two_examples_exchanges_them():
    model, two = tiny(), TOKENS[:2]
    task = Task(model, two, two.flip(0), metrics.mean_loss(two), at=None)
    seen = ablation.ablate(Task(model, two, replace="resample"), ["L0H1", "L1H2"])
    assert seen.equals(ablation.ablate(Task(model, two, two, replace="resample"), ["L0H1", "L1H2"]))
    patched = patching.heads(task, into="clean")
    expected = [patched.sel(layer=0, head=1), patched.sel(layer=1, head=2)]
    assert np.allclose(seen, np.stack(expected))
    assert np.allclose(ablation.ablate(task, ["L0H1", "L1H2"]), np.stack(expected))  # by the run


def test_the_paths_out_of_a_head_sum_to_the_head():
    model = tiny(**LINEAR, n_layers=3)
    to = [f"L{layer}H{head}.V" for layer in (1, 2) for head in range(3)] + ["logits"]
    head, *paths = ablated(
        model, ["L0H1", *(f"L0H1 > {one}" for one in to)], kind="pattern-preserving"
    )
    changes = [path - path.base for path in paths]
    assert np.allclose(head - head.base, sum(changes)) and abs(changes[0]).max() > 1e-3
    through_patterns = ablated(model, "L0H1 > L1H0.Q, L1H0.K", kind="pattern-preserving")
    assert np.allclose(through_patterns, head.base)  # which they do not move


def test_all_paths_of_a_head_together_are_the_head():
    model = tiny(normalization_type="LN")
    receivers = [f"L1H{head}.{what}" for head in range(3) for what in "QKV"] + ["logits"]
    head, path, one = ablated(
        model, ["L0H1", f"L0H1 > {', '.join(receivers)}", "L0H1 > L1H2.K"], replace="mean"
    )
    assert np.allclose(head, path)
    assert not np.allclose(one, head) and not np.allclose(one, one.base)


def test_a_head_that_writes_nothing_is_worth_nothing():
    model = without_weights(tiny(bias=False), [(0, 1)])
    for replace in ("zero", "mean", "resample"):
        seen = ablated(model, ["L0H1", "L0H1 > L1H2.K"], replace=replace)
        assert np.allclose(seen, seen.base)


def test_of_an_untrained_model_no_part_is_worth_what_means_anything():
    model = GPT(tiny(d_model=15, d_mlp=7, act_fn="gelu").cfg)
    seen = ablation.ablate(Task(model, TOKENS), ["L0H1", "MLP1", "MLP0N2", "L0H1 > L1H0.K"])
    assert abs(patching.summary(seen).change).max() < 0.01


def check_table(model: GPT, tokens: torch.Tensor, first: int, whole: float, losses) -> None:
    """Losses from an index on: of the model, and without either head (rows) by kind (columns)."""
    metric = metrics.mean_loss(tokens, first)
    task = Task(model, tokens, metric=metric, at=None)
    table = ablation.by_kind(task, ["L0H0", "L1H0"])
    assert np.allclose(table.base, whole, atol=1e-6)
    frame = table.mean("example").to_pandas()
    assert np.allclose(frame, losses, atol=1e-6)
    assert list(frame.columns) == list(ablation.KINDS) and list(frame.index) == ["L0H0", "L1H0"]
    own = ablation.ablate(task, "L1H0 > logits")
    assert np.allclose(own, losses[1][0], atol=1e-6)  # all that the last head does


def test_a_head_that_tells_keys_where_to_be_found_is_worth_nothing_with_patterns_kept():
    known = ground_truth.Induction()
    model = known.model
    losses = [
        [known.loss_without_previous, known.loss_without_previous_patterns_kept],
        [known.loss_without_induction, known.loss_without_induction],
    ]
    tokens = prompts.repeated(model, 12, batch=4)
    check_table(model, tokens, 14, known.loss_after_repeat, losses)


def test_and_so_is_one_that_tells_queries_where_to_look():
    known = ground_truth.PointerInduction()
    model = known.model
    lost, kept = known.loss_before_repeat, known.loss_after_repeat
    check_table(model, prompts.repeated(model, 12, batch=4), 14, kept, [[lost, kept], [lost, lost]])


def test_but_one_whose_values_are_moved_on_is_worth_all_in_either_way():
    known = ground_truth.VirtualHead()
    model = known.model
    rows = torch.tensor([[0, *[1, 2, 3] * 4], [0, *[7, 5, 9] * 4]])
    check_table(model, rows, 4, known.loss_of_period_three, np.full((2, 2), np.log(20)))


def test_what_does_not_exist_is_refused_in_words():
    model, mlps = tiny(), tiny(**MLPS)
    for names, match in [
        ("L2H0", "no head L2H0"), ("L2 attn", "2 layers"), ("MLP0", "attention-only"),
        ("head 3", "no component is called 'head 3'"), ([], "nothing to ablate"),
        ([["L0H0", "L0H1 > logits"]], "experiment of its own"),
        ("L1H0 > L1H1.K", "comes before none"), ("L0H0 > L1H1", "writes; receivers are"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            ablated(model, names)
    for name, match in [("MLP0N7", "MLP0 has N0 to N6"), ("MLP2N0", "has MLP0 to MLP1"),
                        ("MLP0N1 > logits", "no 'MLP0N1'")]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            ablated(mlps, name)
    for how, match in [
        ({"kind": "half"}, "pattern-pres"),
        ({"replace": "mean", "corrupted": OTHER[:, :5]}, r"tokens of that size, got \[3, 5\]"),
        ({"replace": "resample", "corrupted": OTHER}, r"for \[4, 8\] tokens"),
        ({"replace": "run"}, "give its tokens"),
        ({"pos": 8}, "has 8 of pos"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=match):
            ablated(model, "L0H1", **how)


def loss_by_hand(model: GPT, head: Head, patterns: bool) -> torch.Tensor:
    """The loss of each token with a head's result zeroed, and with all patterns forced or none."""
    _, cache = model.run_with_cache(ROWS)

    def silence(z: torch.Tensor, hook: object) -> torch.Tensor:
        z = z.clone()
        z[:, :, head.head] = 0
        return z

    def force(pattern: torch.Tensor, hook) -> torch.Tensor:
        return cache[hook.name]

    hooks = [(f"blocks.{head.layer}.attn.hook_z", silence)]
    hooks += [("blocks.*.attn.hook_pattern", force)] if patterns else []
    return model.run_with_hooks(ROWS, "loss", loss_per_token=True, fwd_hooks=hooks)


def test_each_head_is_silenced_as_by_hand(variant, monkeypatch):
    monkeypatch.setattr(ablation, "PATTERNS", 2 * 3 * 9**2)  # two rows at a time
    example, index = torch.tensor([[0, 4, 4, 2], [7, 0, 5, 3]])
    whole, without = ablation.losses(variant, ROWS, example, index)
    own = variant(ROWS, return_type="loss", loss_per_token=True)
    assert torch.allclose(whole.double(), own[example, index], atol=1e-5)
    for head in every_head(variant.cfg):
        for kind, kept in enumerate((False, True)):
            expected = loss_by_hand(variant, head, kept)[example, index]
            got = without[head.layer, head.head, kind].double()
            assert torch.allclose(got, expected, atol=1e-5), (head, kind)


def test_the_mean_over_all_tokens_is_named_and_in_nats(variant):
    rise = ablation.of_heads(variant, ROWS)
    own = variant(ROWS, return_type="loss")
    assert rise.attrs["loss"] == pytest.approx(own.item(), abs=1e-5)
    for head in every_head(variant.cfg):
        expected = [
            (loss_by_hand(variant, head, kept).mean() - own).item() for kept in (False, True)
        ]
        got = rise.sel(layer=head.layer, head=head.head)
        assert np.allclose(got, expected, atol=1e-5) and got.label == str(head)
    assert rise.ablation.values.tolist() == ["full", "pattern-preserving"]


def test_without_norms_preserving_patterns_takes_away_the_paths_through_the_head():
    model = tiny(n_layers=3, normalization_type=None, bias=False)
    _, cache = model.run_with_cache(ROWS)
    every = [path for path in paths.all(model) if path.heads]
    for head in every_head(model.cfg):
        through = [path for path in every if head in path.heads]
        gone = torch.stack([paths.logits(model, cache, path) for path in through]).sum(0)
        logits = model(ROWS) - gone
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].mT, ROWS[:, 1:], reduction="none"
        )
        assert torch.allclose(loss_by_hand(model, head, True), expected, atol=1e-9), head


def test_of_the_hand_built_circuit_the_two_give_opposite_verdicts_on_the_previous_token_head():
    answers = ground_truth.Induction()
    model = answers.model
    rise = ablation.of_heads(model, prompts.repeated(model, 12, batch=6))
    full, preserving = rise.sel(layer=0, head=0)
    reader = rise.sel(layer=1, head=0)
    lost = (np.log(20) - answers.loss_after_repeat) * 11 / 24  # of 24 tokens 11 are recalled
    assert np.isclose(preserving, 0, atol=1e-6) and np.isclose(full, lost, atol=0.02)
    assert np.allclose(reader, full, atol=1e-6)


def test_an_untrained_head_is_worth_nothing():
    model = GPT(tiny(d_model=15).cfg)
    assert abs(ablation.of_heads(model, ROWS)).max() < 0.01


def test_heads_of_a_set_are_silenced_together_as_a_task_does(variant):
    if len(heads := every_head(variant.cfg)) < 2:
        pytest.skip("it has no two heads")
    two = [heads[1], heads[-2]]
    places = torch.ones_like(ROWS[:, 1:]).nonzero()
    whole, without = ablation.losses_without(variant, ROWS, [two, two[:1]], *places.unbind(-1))
    names = [[str(head) for head in two], str(two[0])]
    expected = ablation.by_kind(Task(variant, ROWS), names)
    got = without.unflatten(-1, (len(ROWS), -1)).mean(-1)
    np.testing.assert_allclose(got, expected.values, atol=1e-5)
    np.testing.assert_allclose(whole.mean(), expected.base.mean(), atol=1e-5)
