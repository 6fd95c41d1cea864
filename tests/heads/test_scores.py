"""Scores of heads: closed forms on hand-built circuits, an independent oracle, and intervals."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray

from analyses import (
    attention,
    in_context,
    induction,
    induction_task,
    long_context,
    masks,
    patterns,
    prompts,
)
from analyses.labelled import interval, t_quantile
from circuits import GPT, ground_truth
from circuits.ground_truth import AT, BOS, IN, KEEP
from tests.conftest import tiny
from tests.model.test_gpt import native_bridge

EXACT = {"abs": 1e-9, "rel": 0}


def distinct(model: GPT, length: int) -> torch.Tensor:
    """BOS and `length` tokens with none said twice."""
    assert length < model.cfg.d_vocab
    return prompts.random_tokens(model, length, batch=3)


def uniform(model: GPT) -> GPT:
    """The model with every head attending alike to all that it sees."""
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
            block.attn.b_Q.zero_()
    return model


# --- closed forms ---------------------------------------------------------------------------------


def test_induction_by_k_composition_has_every_score_in_closed_form():
    answers = ground_truth.Induction()
    model = answers.model
    once = distinct(model, 19)
    back, match = attention.positional(model), induction.stripe(model, prompts.repeated(model, 19))
    assert float(back[0, 0]) == pytest.approx(answers.previous_token, **EXACT)
    assert int(back.offset[0, 0]) == int(patterns.fixed_offset(model).offset[0, 0]) == 1
    assert float(patterns.fixed_offset(model)[0, 0]) == 1
    assert patterns.entropy(model, once).values == pytest.approx(0, **EXACT)
    assert match.values[:, 0] == pytest.approx([0, 20 / 21], **EXACT)
    assert match.attrs["perfect"] == 20 / 21
    first = attention.first_token(model, once)[:, 0]
    assert first.values == pytest.approx([1 / 19, answers.rest_on_bos], **EXACT)
    assert patterns.sink(model, once)[:, 0].values.tolist() == [0, 1]
    moved = patterns.moved_from_first(model, once)[:, 0]
    assert moved.values == pytest.approx([1 / 19, answers.moved_from_bos], **EXACT)
    assert induction.qk_trace(model).values[:, 0] == pytest.approx([0, answers.qk_trace])
    assert induction.copying(model).values[1, 0] == pytest.approx(answers.copying, **EXACT)
    harmonic = sum(1 / (i + 1) for i in range(19)) / 19  # where nothing matches it sees all alike
    output = induction.output_copying(model, prompts.random_tokens(model, 19)[:, 1:])
    assert output.values[:, 0] == pytest.approx([0, harmonic], **EXACT)


def test_induction_by_pointers_has_every_score_in_closed_form():
    answers = ground_truth.PointerInduction()
    model = answers.model
    once, twice = distinct(model, 31), prompts.repeated(model, 31)
    duplicate = attention.duplicate_token(model, twice).values
    assert duplicate[:, 0] == pytest.approx([answers.duplicate_token, 0], **EXACT)
    prefix = attention.prefix_matching(model, twice).values
    assert prefix[:, 0] == pytest.approx([0, answers.prefix_matching], **EXACT)
    # The duplicate head is one entry off the stripe, but for the rest on BOS.
    stripe = induction.stripe(model, prompts.repeated(model, 31))
    assert stripe.values[:, 0] == pytest.approx([1 / 33, stripe.attrs["perfect"]], **EXACT)
    assert attention.first_token(model, once).values == pytest.approx(1, **EXACT)
    assert patterns.entropy(model, once).values == pytest.approx(0, **EXACT)
    assert patterns.sink(model, once).values.tolist() == [[1], [1]]
    assert induction.qk_trace(model).values.tolist() == [[0], [0]]


def test_the_two_heads_of_the_virtual_head_look_one_back_and_nothing_else():
    answers = ground_truth.VirtualHead()
    model = answers.model
    found = attention.positional(model)
    assert found.values == pytest.approx(answers.previous_token, **EXACT)
    assert (found.offset == 1).all() and (patterns.fixed_offset(model) == 1).all()
    assert patterns.entropy(model).values == pytest.approx(0, **EXACT)
    assert induction.stripe(model, prompts.repeated(model, 19)).values == pytest.approx(0, **EXACT)
    assert attention.current_token(model).values == pytest.approx(0, **EXACT)
    assert (attention.taxonomy(model).role == "previous token").all()


def test_the_skip_trigram_head_looks_at_what_it_keeps_and_else_rests():
    model = ground_truth.SkipTrigramBug().model
    tokens = torch.tensor([[BOS, KEEP, 9, 8, IN], [BOS, 9, KEEP, 7, AT]])
    asks = ((tokens == IN) | (tokens == AT))[:, :, None] & (tokens == KEEP)[:, None, :]
    kept = attention.attention_on(model, tokens, asks, "kept", "attention to keep")
    assert kept.item() == pytest.approx(1, **EXACT)
    rests = attention.first_token(model, tokens[:, :-1])
    assert rests.item() == pytest.approx(1, **EXACT)
    assert patterns.moved_from_first(model, tokens).item() == pytest.approx(0, **EXACT)
    assert patterns.sink(model, tokens).item() == 1
    assert patterns.entropy(model, tokens).item() == pytest.approx(0, **EXACT)


def test_smeared_induction_has_every_score_in_closed_form():
    model = ground_truth.SmearedInduction().model
    answers, once = ground_truth.SmearedInduction(), distinct(model, 19)
    prefix = attention.prefix_matching(model, prompts.repeated(model, 19))
    assert prefix.item() == pytest.approx(answers.prefix_matching, **EXACT)
    # Half of the rest is on either entry without a match.
    stripe = induction.stripe(model, prompts.repeated(model, 19))
    assert stripe.item() == pytest.approx(stripe.attrs["perfect"], **EXACT)
    assert attention.first_token(model, once).item() == pytest.approx(answers.rest_on_bos, **EXACT)
    assert patterns.entropy(model, once).item() == pytest.approx(math.log(2), **EXACT)
    assert patterns.sink(model, once).item() == 1
    assert patterns.moved_from_first(model, once).item() == 0
    assert induction.qk_trace(model).item() == 0  # no earlier head moves anything


def test_a_uniform_head_has_what_is_said_to_be_chance():
    model = uniform(tiny(positional_embedding_type="none", n_ctx=40))
    for score in (patterns.entropy, patterns.sink, induction.stripe, attention.positional):
        found = score(model)
        assert found.values == pytest.approx(found.attrs["chance"], abs=1e-12)
    short = patterns.sink(model, distinct(model, 4))
    assert (short == 1).all() and short.attrs["chance"] == 1


# --- an independent oracle ------------------------------------------------------------------------


HEADS = {
    "previous_token_head": attention.previous_token,
    "duplicate_token_head": attention.duplicate_token,
    "induction_head": attention.prefix_matching,
}


@pytest.mark.filterwarnings("ignore")
def test_times_the_share_that_is_counted_a_score_is_transformer_lens_detect_head():
    from transformer_lens.head_detector import detect_head

    gt = ground_truth.Induction(16).model
    for model in (gt, tiny(), tiny(n_ctx=24, smeared_keys=True, positional_embedding_type="none")):
        length = min(15, (model.cfg.n_ctx - 2) // 2)
        tokens = prompts.repeated(model, length, batch=1)
        asked = SimpleNamespace(
            cfg=SimpleNamespace(n_layers=2, n_heads=model.cfg.n_heads, n_ctx=model.cfg.n_ctx,
                                device="cpu", dtype=torch.float64),
            to_tokens=lambda seq, tokens=tokens: tokens,
            run_with_cache=lambda seq, remove_batch_dim, model=model: (
                None, {("pattern", i, "attn"): model.run_with_cache(seq)[1]["pattern", i][0]
                       for i in range(2)}),
        )  # fmt: skip
        for name, score in HEADS.items():
            ours = score(model, tokens)
            theirs = detect_head(asked, "", name)
            assert np.allclose(ours * ours.attrs["counted"], theirs, atol=1e-12, rtol=0), name
        if model is gt:  # what a perfect head has there
            assert float(detect_head(asked, "", "previous_token_head")[0]) == pytest.approx(30 / 31)
            assert float(detect_head(asked, "", "induction_head")[1]) == pytest.approx(15 / 31)


@pytest.mark.filterwarnings("ignore")
def test_a_transformer_lens_bridge_has_the_scores_of_the_same_gpt():
    bridge, model = native_bridge(torch.float64, normalization_type="LN", n_ctx=24)
    tokens = prompts.repeated(model, 5, batch=2)
    scores = (attention.taxonomy, attention.positional, induction.stripe, patterns.entropy,
              induction.copying, induction.output_copying,
              patterns.sink, patterns.moved_from_first, patterns.fixed_offset,
              induction.loss_by_position, lambda m: in_context.loss_by_index(m, tokens),
              lambda m: patterns.capture(m, tokens[:1]))  # fmt: skip
    for score in scores:
        assert np.allclose(score(bridge), score(model), atol=1e-10, rtol=0)


# --- intervals ------------------------------------------------------------------------------------


def test_an_interval_of_means_is_students_t():
    draws = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = interval(draws, torch.ones(5, 1))
    assert torch.allclose((high + low) / 2, draws.mean(0))
    assert torch.allclose(high - low, 2 * 2.776445 * draws.std(0) / math.sqrt(5), rtol=1e-3)
    ends = interval(torch.tensor([0.0, 1.0]), torch.ones(2))
    assert torch.allclose(ends, torch.tensor([0.5 - 12.706205 / 2, 0.5 + 12.706205 / 2]).double())
    alike = interval(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1, 2, 6]))
    assert alike.tolist() == [1, 1]  # every example has the same ratio
    assert interval(torch.ones(1, 2), torch.ones(1, 1)).isnan().all()
    for degrees, known in [(1, 12.706205), (2, 4.302653), (3, 3.182446), (7, 2.364624),
                           (100, 1.983972)]:  # fmt: skip
        assert t_quantile(0.975, degrees) == pytest.approx(known, rel=2e-3)


@pytest.mark.parametrize("n", [4, 8, 32])
def test_an_interval_covers_the_truth_as_often_as_it_says(n):
    counts = torch.randint(1, 6, (n, 2000), generator=torch.Generator().manual_seed(n))
    noise = torch.randn(n, 2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sums = counts * 3.0 + noise * counts.sqrt()
    low, high = interval(sums, counts)
    assert ((low < 3) & (high > 3)).double().mean() == pytest.approx(0.95, abs=0.025)


def test_scores_have_intervals_over_their_prompts():
    model, tokens = tiny(), prompts.random_tokens(tiny(), 12, batch=6)
    for score in (attention.previous_token(model, tokens), patterns.entropy(model, tokens),
                  attention.positional_preference(model, tokens, reach=3), induction.stripe(model),
                  induction.copying(model), induction.output_copying(model),
                  patterns.moved_from_first(model, tokens)):  # fmt: skip
        assert score.low.dims == score.dims and "chance" in score.attrs
        assert (score.low < score).all() and (score < score.high).all(), score.name
    one = attention.previous_token(model, tokens[:1])
    assert one.low.isnull().all() and one.high.isnull().all()
    rows = [attention.previous_token(model, row[None]) for row in tokens]
    mean = xarray.concat(rows, "row", coords="minimal", compat="override").mean("row")
    assert attention.previous_token(model, tokens).values == pytest.approx(mean.values)


# --- the taxonomy's margin ------------------------------------------------------------------------


NAMES = list(masks.BEHAVIOURS)


def with_roles(*heads: dict[str, float]) -> xarray.DataArray:
    """Heads of one layer with these scores, all others 0."""
    values = [[[scores.get(name, 0.0) for name in NAMES] for scores in heads]]
    dims = ("layer", "head", "behaviour")
    found = xarray.DataArray(values, dims=dims, coords={"behaviour": NAMES})
    return attention.with_roles(found, 0.4)


@pytest.mark.parametrize(
    ("scores", "role", "score", "margin"),
    [
        ({"induction": 0.7, "current token": 0.2}, "induction", 0.7, 0.3),  # to the threshold
        ({"induction": 0.7, "current token": 0.6}, "induction", 0.7, 0.1),  # to the runner-up
        ({"induction": 0.5, "first token": 0.9}, "induction", 0.5, 0.1),  # which rest is not
        ({"first token": 0.9, "induction": 0.3}, "first token", 0.9, 0.1),  # until one is busy
        ({"first token": 0.45, "induction": 0.1}, "first token", 0.45, 0.05),
        ({"induction": 0.1, "first token": 0.25}, "-", 0.25, 0.15),
    ],
)
def test_a_margin_is_the_least_change_of_one_score_for_another_role(scores, role, score, margin):
    def roles(change: float) -> set[str]:
        """What the head would be if any one score differed by so much, either way."""
        others = [{**scores, name: scores.get(name, 0.0) + sign * change}
                  for name in NAMES for sign in (1, -1)]  # fmt: skip
        return set(with_roles(*others).role.values.ravel().tolist())

    found = with_roles(scores)
    assert found.role.item() == role
    assert found.score.item() == pytest.approx(score)
    assert found.margin.item() == pytest.approx(margin)
    assert roles(margin - 0.01) == {role} and roles(margin + 0.01) > {role}


def test_capture_holds_the_patterns_and_what_they_move():
    model = tiny()
    tokens = prompts.random_tokens(model, 6, batch=1)
    seen = patterns.capture(model, tokens)
    _, cache = model.run_with_cache(tokens)
    assert seen.dims == ("view", "layer", "head", "dest", "src")
    assert np.allclose(seen.sel(view="attention")[1], cache["pattern", 1][0])
    moved = attention.value_weighted(cache["pattern", 0], cache["v", 0])[0]
    assert np.allclose(seen.sel(view="moved")[0], moved)


def test_what_makes_no_sense_is_refused_in_words():
    with pytest.raises(ValueError, match="2 or more distinct tokens that are repeated, got 1"):
        induction.stripe(tiny(), prompts.repeated(tiny(), 1))
    with pytest.raises(ValueError, match="got 29 of the 28 beside BOS"):
        induction.stripe(tiny(n_ctx=99), prompts.repeated(tiny(n_ctx=99), 29))
    with pytest.raises(ValueError, match=r"from 0 to below 1; got 1\.5"):
        patterns.sink(tiny(), epsilon=1.5)
    with pytest.raises(ValueError, match="losses at two indices or more"):
        in_context.slope(xarray.DataArray([3.0], dims="index", coords={"index": [1]}))


def test_masks_of_some_destinations_are_rows_of_the_whole():
    tokens = torch.randint(0, 4, (3, 9), generator=torch.Generator().manual_seed(0))
    for mask in (rule.mask for rule in masks.BEHAVIOURS.values()):
        whole = mask(tokens)
        assert whole.equal(torch.cat([mask(tokens, dests=slice(0, 4)), whole[:, 4:]], 1))
        assert whole[:, 4:7].equal(mask(tokens, dests=slice(4, 7)))


# --- models made elsewhere ------------------------------------------------------------------------


def bos_last(model: GPT) -> GPT:
    """The model with its tokens renamed: BOS comes last, as in GPT-2, and all others one before."""
    with torch.no_grad():
        model.embed.W_E.copy_(model.W_E.roll(-1, 0))
        model.unembed.W_U.copy_(model.W_U.roll(-1, 1))
    return model


@pytest.mark.parametrize("d_vocab", [6, 12, 20])
def test_an_ideal_induction_head_has_the_perfect_stripe_in_a_small_vocabulary(d_vocab):
    stripe = induction.stripe(ground_truth.Induction(d_vocab).model)
    assert stripe.values[:, 0] == pytest.approx([0, stripe.attrs["perfect"]], **EXACT)
    assert stripe.attrs["perfect"] == d_vocab / (d_vocab + 1)


@pytest.mark.parametrize("d_vocab", [25, 26, 40])
def test_an_ideal_induction_head_copies_all_of_the_little_that_it_sees_or_has_no_score(d_vocab):
    found = induction.copying(ground_truth.Induction(d_vocab).model)
    assert found.values[1, 0] == pytest.approx(1, **EXACT)
    rounded = induction.copying(ground_truth.Induction(d_vocab, sharpness=1000.0).model.float())
    assert np.isnan(rounded[1, 0]) if d_vocab > 25 else rounded[1, 0] == pytest.approx(1)


def test_prompts_begin_with_the_bos_that_the_model_has_or_that_is_said():
    model = bos_last(ground_truth.Induction().model)
    bos = model.cfg.d_vocab - 1
    said, roles = {"bos": bos}, np.array([["previous token"], ["induction"]])
    wrong = induction.copying(model)
    for given in (said, {}):  # first as an argument, then by the model
        assert (attention.taxonomy(model, **given).role == roles).all()
        stripe = induction.stripe(model, prompts.repeated(model, 19, **given))
        assert stripe.values[1, 0] == pytest.approx(stripe.attrs["perfect"], **EXACT)
        copied = induction.copying(model, prompts.random_tokens(model, 25, batch=10, **given))
        assert copied.values[1, 0] == pytest.approx(1, **EXACT)
        assert (prompts.repeated_often(model, **given)[:, 0] == bos).all()
        task = induction_task(model, 6, **given)
        for rows in (task.clean, task.corrupted):
            assert (rows[:, 0] == bos).all() and (rows[:, 1:] < bos).all()
        assert (task.clean[:, 1:] != task.corrupted[:, 1:]).all()
        model.bos = bos
    assert wrong.values[1, 0] < 0.9
    for words in (lambda: prompts.bos_of(model, 99), lambda: setattr(model, "bos", -1)):
        with pytest.raises(ValueError, match=r"bos=.*must be a token"):
            words()


def test_prompts_end_where_training_did_and_scores_say_on_how_many_positions_they_were_judged():
    model = tiny(n_ctx=200, n_layers=1, positional_embedding_type="shortformer_sinusoidal")
    long = prompts.random_tokens(model, 149, batch=2)
    assert attention.taxonomy(model).positions.values.tolist() == [65, 65, 65, 129, 101]
    assert "untrained_positions" not in attention.previous_token(model, long).attrs
    model.trained_ctx = 21
    assert attention.taxonomy(model).positions.values.tolist() == [21] * 5
    for score in (patterns.entropy, patterns.sink, patterns.moved_from_first, induction.stripe,
                  patterns.fixed_offset, induction.copying, attention.positional):  # fmt: skip
        assert score(model).attrs["positions"] <= 21
    for score in (attention.previous_token, patterns.entropy, patterns.sink, long_context.entropy,
                  attention.positional_preference, long_context.behaviours):  # fmt: skip
        attrs = score(model, long).attrs
        assert (attrs["positions"], attrs["untrained_positions"]) == (150, 129)
    with pytest.raises(ValueError, match="trained_ctx=201 must be 1 to n_ctx=200"):
        model.trained_ctx = 201
