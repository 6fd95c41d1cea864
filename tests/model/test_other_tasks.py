"""Models that look ahead, or whose logits are of something else than the next token: what holds for
them is exact, and what rests on the usual task is refused in words."""

import pytest
import torch

from analyses import (
    Task,
    ablation,
    attention,
    copying,
    detectors,
    idealised,
    importance,
    in_context,
    induction,
    long_context,
    patterns,
    recording,
)
from circuits import algebra, paths, residual, scores
from circuits.interventions import edit, sweep, zeros
from circuits.model import KeyValueCache, folding
from circuits.training import next_token_loss
from tests.conftest import OTHER_TASKS, tiny, tiny_tokens, variant_name

TOKENS = tiny_tokens()
AHEAD, ANSWERS = {"attention_dir": "bidirectional"}, {"d_vocab_out": 5}


@pytest.mark.parametrize("fields", OTHER_TASKS, ids=variant_name)
def test_it_comes_apart_and_its_parts_add_up(fields):
    model = tiny(**fields)
    with torch.no_grad():
        logits, cache = model.run_with_cache(TOKENS)
        assert logits.shape == (3, 7, fields.get("d_vocab_out", 29))
        parts = [
            residual.components(model, cache),
            residual.logit_attribution(model, cache, 4, against=2),
            paths.groups(model, cache, "start"),
            scores.groups(model, cache, "L1H2"),
        ]
        for one in parts:
            assert one.remainder.abs().max() < 1e-10
        assert torch.allclose(parts[2].whole, logits, rtol=0, atol=1e-10)
        folded = folding.fold_values(model)(TOKENS)
        assert torch.allclose(folded, logits, rtol=0, atol=1e-10)
    assert algebra.full_OV(model).shape[-2:] == (29, logits.shape[-1])


def test_without_positions_what_looks_ahead_knows_no_order():
    model, order = tiny(positional_embedding_type="none", **AHEAD), torch.randperm(7)
    assert torch.allclose(model(TOKENS[:, order]), model(TOKENS)[:, order], rtol=0, atol=1e-10)
    causal = tiny(positional_embedding_type="none")
    assert not torch.allclose(causal(TOKENS.flip(1)), causal(TOKENS).flip(1), atol=0.1)


def test_a_sweep_hands_what_it_changes_on_to_earlier_positions():
    model = tiny(**AHEAD)
    names = ["blocks.0.hook_resid_pre", "blocks.1.attn.hook_v"]

    def metric(logits):
        return logits[..., 0]

    def cut(value, hook):
        value[:, 5] = 0

    with torch.no_grad():
        logits, cache = model.run_with_cache(TOKENS)
        cells = [[edit(model, name, zeros(cache, name), pos=5)] for name in names]
        found = sweep(model, TOKENS, cells, metric, at=1)
        for name, row in zip(names, found, strict=True):
            alone = model.run_with_hooks(TOKENS, fwd_hooks=[(name, cut)])
            assert torch.allclose(row, metric(alone[:, 1]), rtol=0, atol=1e-10)
            assert not torch.allclose(row, metric(logits[:, 1]), atol=1e-3)


LOSSES = {
    "loss": lambda m: m(TOKENS, return_type="loss"),
    "training": lambda m: next_token_loss(m, TOKENS),
    "generate": lambda m: m.generate(TOKENS, 2),
    "ablation": lambda m: ablation.by_kind(Task(m, TOKENS), ["L0H1"]),
    "idealised": lambda m: idealised.substitute(Task(m, TOKENS), ["L0H1"]),
    "importance": lambda m: importance.by_order(m, TOKENS),
    "virtual heads": lambda m: importance.of_virtual_heads(m, TOKENS),
    "recording": lambda m: recording.history_entry(m, TOKENS),
    "in context": lambda m: in_context.loss_by_index(m, TOKENS),
    "by position": lambda m: induction.loss_by_position(m),
    "copying": lambda m: induction.copying(m),
    "output copying": lambda m: induction.output_copying(m),
    "own rank": lambda m: copying.own_rank(m),
    "detectors": lambda m: detectors.is_above_threshold(m),
}
LOOKS = {
    "cache": lambda m: m(TOKENS, past_kv_cache=KeyValueCache.init_cache(m.cfg, 3)),
    "patterns": lambda m: patterns.entropy(m),
    "prefix": lambda m: attention.prefix_matching(m),
    "long context": lambda m: long_context.queries_and_keys(m, TOKENS, 0),
    "by token": lambda m: scores.by_token(m, m.run_with_cache(TOKENS)[1], "L1H0", dest=3, src=1),
}


@pytest.mark.parametrize("name", [*LOSSES, *LOOKS])
def test_what_needs_causal_attention_says_so(name):
    with pytest.raises(ValueError, match="needs causal attention, and attention_dir='bidirect"):
        {**LOSSES, **LOOKS}[name](tiny(**AHEAD))


@pytest.mark.parametrize("name", LOSSES)
def test_what_needs_logits_of_the_next_token_says_so(name):
    with pytest.raises(ValueError, match="needs logits of the next token, and d_vocab_out=5 is"):
        LOSSES[name](tiny(**ANSWERS))


@pytest.mark.parametrize("name", LOOKS)
def test_what_does_not_runs(name):
    LOOKS[name](tiny(**ANSWERS))


def test_a_classifier_of_brackets_learns():
    """What such models are made for: are ( and ) balanced? Read at the first position."""
    model = tiny(n_layers=1, dtype=torch.float32, d_vocab=3, d_vocab_out=2, **AHEAD)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 3, (256, 8), generator=generator)
    tokens[:, 0] = 0
    answer = (tokens == 1).sum(1) > (tokens == 2).sum(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(tokens)[:, 0], answer.long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model(tokens)[:, 0].argmax(-1) == answer).float().mean() > 0.95
