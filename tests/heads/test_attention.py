"""Attention to where a head should look is TransformerLens's number, and a role has its margin."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray

from analyses import attention, masks, prompts
from circuits import ground_truth
from tests.conftest import tiny

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


def test_a_uniform_head_scores_exactly_the_chance_level():
    model = tiny(positional_embedding_type="none")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.W_Q.zero_()
            block.attn.b_Q.zero_()
    rules = (partial(attention.behaviour, name=name) for name in masks.BEHAVIOURS)
    for score in (*rules, partial(attention.offset, back=3)):
        result = score(model)
        assert result.values == pytest.approx(result.attrs["chance"], abs=1e-12)


def test_scores_are_labelled_bounded_and_need_no_tokenizer():
    score = attention.prefix_matching(tiny())
    assert score.dims == ("layer", "head") and score.label.values[1, 2] == "L1H2"
    assert score.attrs["bounds"] == (0.0, 1.0) and 0 < score.attrs["chance"] < 1
    preference = attention.positional_preference(tiny(), reach=4)
    assert preference.sizes == {"layer": 2, "head": 3, "offset": 5}
    assert preference.sel(offset=1).values == pytest.approx(attention.previous_token(tiny()).values)
