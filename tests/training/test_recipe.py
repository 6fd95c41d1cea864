"""A recipe is checked when it is made, and comes back from JSON."""

import math

import pytest

from circuits.training import (
    Recipe,
)


def test_the_schedule_warms_up_and_ends_on_its_final_share():
    recipe = Recipe(steps=1000, batch_size=1, warmup=10, final=0.1)
    shares = [recipe.schedule(step) for step in range(1000)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == pytest.approx(1.0, abs=1e-3)
    assert shares[-1] == pytest.approx(0.1, abs=1e-3)
    assert shares[10:] == sorted(shares[10:], reverse=True)


RECIPE = Recipe(steps=26, batch_size=4, lr=3e-3, muon_lr=0.02, evaluate_every=7)


def test_a_recipe_comes_back_from_json_also_from_one_that_knew_fewer_fields():
    recipe = Recipe(steps=3, batch_size=8, accumulate=2, bf16=True)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.from_json('{"steps": 3, "batch_size": 8}') == Recipe(steps=3, batch_size=8)


def test_a_recipe_of_numbers_that_make_no_sense_is_refused():
    bad = [(field, value) for field in ("lr", "clip", "muon_decay", "final")
           for value in (math.nan, math.inf, -1.0)]  # fmt: skip
    for field, value in [*bad, ("steps", True), ("steps", 0)]:
        with pytest.raises(ValueError, match=f"{field} must be a .*number"):
            Recipe(**{"steps": 3, "batch_size": 8, field: value})


@pytest.mark.parametrize("text", ["[1]", "3", "{}", '{"steps": 3}'])
def test_a_recipe_of_other_json_is_refused_in_words(text):
    with pytest.raises(ValueError, match="a recipe"):
        Recipe.from_json(text)
