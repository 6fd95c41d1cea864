"""Without a head: what it moved is gone, and what later heads saw of it too, or not."""

import numpy as np
import pytest
import torch

from analyses import ablation, prompts
from analyses.causal import Task
from circuits import GPT, ground_truth, paths
from circuits.model import Head, every_head
from tests.conftest import tiny, tiny_tokens

TOKENS = tiny_tokens(batch=5, pos=9)


def by_hand(model: GPT, head: Head, patterns: bool) -> torch.Tensor:
    """The loss of each token with a head's result zeroed, all patterns forced or none."""
    _, cache = model.run_with_cache(TOKENS)

    def silence(z: torch.Tensor, hook: object) -> torch.Tensor:
        z = z.clone()
        z[:, :, head.head] = 0
        return z

    def force(pattern: torch.Tensor, hook) -> torch.Tensor:
        return cache[hook.name]

    hooks = [(f"blocks.{head.layer}.attn.hook_z", silence)]
    hooks += [("blocks.*.attn.hook_pattern", force)] if patterns else []
    return model.run_with_hooks(TOKENS, "loss", loss_per_token=True, fwd_hooks=hooks)


def test_each_head_is_silenced_as_by_hand(variant, monkeypatch):
    monkeypatch.setattr(ablation, "PATTERNS", 2 * 3 * 9**2)  # two rows at a time
    example, index = torch.tensor([[0, 4, 4, 2], [7, 0, 5, 3]])
    whole, without = ablation.losses(variant, TOKENS, example, index)
    own = variant(TOKENS, return_type="loss", loss_per_token=True)
    assert torch.allclose(whole.double(), own[example, index], atol=1e-5)
    for head in every_head(variant.cfg):
        for kind, kept in enumerate((False, True)):
            expected = by_hand(variant, head, kept)[example, index]
            got = without[head.layer, head.head, kind].double()
            assert torch.allclose(got, expected, atol=1e-5), (head, kind)


def test_the_mean_over_all_tokens_is_named_and_in_nats(variant):
    rise = ablation.of_heads(variant, TOKENS)
    own = variant(TOKENS, return_type="loss")
    assert rise.attrs["loss"] == pytest.approx(own.item(), abs=1e-5)
    for head in every_head(variant.cfg):
        expected = [(by_hand(variant, head, kept).mean() - own).item() for kept in (False, True)]
        got = rise.sel(layer=head.layer, head=head.head)
        assert np.allclose(got, expected, atol=1e-5) and got.label == str(head)
    assert rise.ablation.values.tolist() == ["full", "pattern-preserving"]


def test_without_norms_preserving_patterns_takes_away_the_paths_through_the_head():
    model = tiny(n_layers=3, normalization_type=None, bias=False)
    _, cache = model.run_with_cache(TOKENS)
    every = [path for path in paths.all(model) if path.heads]
    for head in every_head(model.cfg):
        through = [path for path in every if head in path.heads]
        gone = torch.stack([paths.logits(model, cache, path) for path in through]).sum(0)
        logits = model(TOKENS) - gone
        expected = torch.nn.functional.cross_entropy(
            logits[:, :-1].mT, TOKENS[:, 1:], reduction="none"
        )
        assert torch.allclose(by_hand(model, head, True), expected, atol=1e-9), head


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
    assert abs(ablation.of_heads(model, TOKENS)).max() < 0.01


def test_heads_of_a_set_are_silenced_together_as_a_task_does(variant):
    if len(heads := every_head(variant.cfg)) < 2:
        pytest.skip("it has no two heads")
    two = [heads[1], heads[-2]]
    places = torch.ones_like(TOKENS[:, 1:]).nonzero()
    whole, without = ablation.losses_without(variant, TOKENS, [two, two[:1]], *places.unbind(-1))
    names = [[str(head) for head in two], str(two[0])]
    expected = ablation.by_kind(Task(variant, TOKENS), names)
    got = without.unflatten(-1, (len(TOKENS), -1)).mean(-1)
    np.testing.assert_allclose(got, expected.values, atol=1e-5)
    np.testing.assert_allclose(whole.mean(), expected.base.mean(), atol=1e-5)
