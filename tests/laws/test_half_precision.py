"""A half-precision model has the scores of the same model in float32, up to its own rounding.

The weights that ship are float16: loaded as such they are the same numbers, so that a score of
weights alone must agree closely. bfloat16 has rounded them.
"""

from functools import cache

import numpy as np
import pytest
import torch

from analyses import (
    Task,
    ablation,
    attention,
    attribution,
    bandwidth,
    copying,
    discovery,
    evaluation,
    expansion,
    explorer,
    idealised,
    importance,
    in_context,
    induction,
    induction_task,
    logit_effects,
    long_context,
    metrics,
    patching,
    path_patching,
    patterns,
    prompts,
    skip_trigrams,
)
from circuits import GPT, load
from circuits.hooked_transformer import HookedTransformer
from tests.conftest import tiny

SHIPPED = load("attn-only-2l")
HALF = (torch.float16, torch.bfloat16)
TWICE, OTHER = (prompts.repeated(SHIPPED, 4, batch=2, seed=seed) for seed in (0, 1))
ROW = SHIPPED.to_tokens("The captain of the ship")
METRIC = metrics.loss(TWICE[:, 5])


def task(model: GPT) -> Task:
    return induction_task(model, 3, batch=2)


def patch(model: GPT) -> Task:
    return Task(model, OTHER, TWICE, METRIC, at=None)


OF_WEIGHTS = {
    "copying.score": copying.score,
    "copying.qk_score": copying.qk_score,
    "copying.composed_qk_score": lambda m: copying.composed_qk_score(m, "L0H3"),
    "bandwidth.virtual_weights": bandwidth.virtual_weights,
    "bandwidth.spectra": bandwidth.spectra,
    "bandwidth.joint_share": bandwidth.joint_share,
}
OF_RUNS = {
    "attention.prefix_matching": lambda m: attention.prefix_matching(m, TWICE),
    "attention.positional_preference": lambda m: attention.positional_preference(m, TWICE),
    "induction.copying": lambda m: induction.copying(m, TWICE),
    "induction.output_copying": lambda m: induction.output_copying(m, TWICE),
    "induction.qk_trace": induction.qk_trace,
    "induction.loss_by_position": lambda m: induction.loss_by_position(m, TWICE),
    "induction.stripe": lambda m: induction.stripe(m, TWICE),
    "patterns.entropy": lambda m: patterns.entropy(m, TWICE),
    "patterns.moved_from_first": lambda m: patterns.moved_from_first(m, TWICE),
    "patterns.capture": lambda m: patterns.capture(m, ROW),
    "long_context.behaviours": lambda m: long_context.behaviours(m, TWICE),
    "long_context.entropy": lambda m: long_context.entropy(m, TWICE),
    "logit_effects.by_source": lambda m: logit_effects.by_source(m, ROW),
    "ablation.ablate": lambda m: ablation.ablate(Task(m, ROW), ["L0H0"]),
    "ablation.of_heads": lambda m: ablation.of_heads(m, ROW),
    "patching.heads": lambda m: patching.heads(patch(m)),
    "attribution.heads": lambda m: attribution.heads(patch(m)),
    "path_patching": lambda m: path_patching.path_patching(
        patch(m), senders=["L0H0"], receivers=["logits"], into="corrupted"
    ),
    "bandwidth.write_norms": lambda m: bandwidth.write_norms(m, ROW),
    "expansion.score_terms": lambda m: expansion.score_terms(m, ROW, "L1H1"),
    "idealised.substitute": lambda m: idealised.substitute(Task(m, TWICE), ["L1H1"]),
    "importance.by_order": lambda m: importance.by_order(m, ROW),
    "importance.frozen_by_order": lambda m: importance.frozen_by_order(m, ROW),
    "in_context.loss_by_index": lambda m: in_context.loss_by_index(m, TWICE),
    "evaluation.evaluate_on": lambda m: evaluation.evaluate_on(m, [TWICE]).attention,
    "skip_trigrams.bug_grid": lambda m: skip_trigrams.bug_grid(
        m, "L1H1", " the", destinations=[" of"], outs=[" a"]
    ),
    "discovery.eap": lambda m: discovery.eap(task(m)),
    "Task.clean_value": lambda m: task(m).clean_value,
}  # fmt: skip


@cache
def in_float32(name: str):
    return {**OF_WEIGHTS, **OF_RUNS}[name](SHIPPED)


def missed(half, whole) -> float:
    """The largest difference, as a share of the largest entry; NaNs must be in the same places."""
    difference = np.abs(half.values.astype(float) - whole.values)
    assert np.array_equal(np.isnan(half.values), np.isnan(whole.values))
    return np.nanmax(difference) / np.nanmax(np.abs(whole.values))


@pytest.mark.parametrize("dtype", HALF)
def test_every_score_of_a_half_precision_model_is_that_of_its_weights_in_float32(dtype):
    model, coarse = load("attn-only-2l", dtype=dtype), 1 if dtype == torch.float16 else 10
    for scores, most in ((OF_WEIGHTS, 6e-4), (OF_RUNS, 6e-3)):
        for name, score in scores.items():
            found = score(model)
            assert found.dtype in (np.float32, np.float64), name
            assert missed(found, in_float32(name)) < most * coarse, name
    assert explorer.page(model, ROW).html


@pytest.mark.parametrize("dtype", HALF)
def test_the_loss_of_a_half_precision_model_is_rounded_in_its_logits_alone(dtype):
    model, tokens = load("attn-only-2l", dtype=dtype), TWICE
    logits = model(tokens)[:, :-1].float()
    loss = model(tokens, return_type="loss", loss_per_token=True)
    right = torch.nn.functional.cross_entropy(logits.mT, tokens[:, 1:], reduction="none")
    assert loss.dtype == torch.float32 and torch.allclose(loss, right)


@pytest.mark.parametrize("dtype", HALF)
def test_a_ported_half_precision_model_has_its_composition_scores(dtype):
    model = HookedTransformer.from_pretrained_no_processing("attn-only-2l", dtype=dtype)
    for mode in "QKV":
        half = model.all_composition_scores(mode)
        model.float()
        assert torch.allclose(half, model.all_composition_scores(mode))
        model.to(dtype)


def test_a_silent_head_moves_nothing_in_half_precision_too():
    model = tiny(dtype=torch.float16, n_layers=1)
    with torch.no_grad():
        model.blocks[0].attn.W_V[0], model.blocks[0].attn.b_V[0] = 0, 0
    _, cache = model.run_with_cache(prompts.random_tokens(model, 5, batch=2))
    moved = attention.value_weighted(cache["pattern", 0], cache["v", 0])
    assert moved[:, 0].eq(0).all() and moved[:, 1:].amax((-2, -1)).eq(1).all()
