"""Claims about width and depth are asked of models that differ in it, and of no others."""

from dataclasses import replace

import numpy as np
import pytest
import xarray

from analyses import figures
from analyses.papers.figures.induction.ablation import undone
from analyses.papers.figures.runs import Run, pairs_of_widths, runs
from circuits.model import GPTConfig

(SMALL,) = runs(["attn-only-2l"])
SHAPE = {"d_model": 8, "n_heads": 2, "d_head": 4, "n_ctx": 8, "d_vocab": 9}


def wider(less):
    """The same run of twice the width, whose loss is less by this much at each index."""
    loss = SMALL.history.loss_by_index - less
    history = SMALL.history.assign(loss_by_index=loss.assign_attrs(units="nats"))
    return Run("wide", replace(SMALL.cfg, d_model=2 * SMALL.cfg.d_model), history)


@pytest.mark.parametrize(("early", "holds"), [(0.2, True), (0.05, False)])
def test_more_than_half_of_the_gap_must_be_there_at_the_tenth_token(early, holds):
    n = SMALL.history.sizes["index"]
    large = wider(xarray.DataArray(np.where(np.arange(n) < 100, early, 0.3), dims="index"))
    assert pairs_of_widths([large, SMALL]) == [(SMALL, large)]
    found = figures.EVERY["induction/loss-by-index"].find([large, SMALL])
    assert found.holds is holds, found.here
    assert len(found.picture().axes) == 1


def test_the_order_of_slopes_must_turn_around():
    step, window = SMALL.history.step, SMALL.window
    late = np.log(np.maximum(step / window.end, 1.0)) - np.log(np.maximum(window.start / step.clip(
        min=1), 1.0))  # fmt: skip
    for turn, holds in ((abs(late), True), (late, False)):  # slower before, faster after; faster
        history = SMALL.history.assign(held_out=SMALL.history.held_out - 0.1 * turn)
        large = Run("wide", replace(SMALL.cfg, d_model=256), history)
        found = figures.EVERY["induction/loss-speed"].find([SMALL, large])
        assert found.holds is holds, found.here


def of_depth(prefix, mlps=False):
    """A run whose heads have this prefix matching at the end, [layer head]."""
    score = (("step", "layer", "head"), np.array([prefix]))
    none = (("step", "layer", "head"), np.zeros((1, *np.shape(prefix))))
    labels = [[f"L{i}H{j}" for j in range(2)] for i in range(len(prefix))]
    history = xarray.Dataset(
        {"prefix_matching": score, "previous_token": none, "current_token": none},
        {"label": (("layer", "head"), labels), "layer": range(len(prefix))},
    )
    with_mlps = {"d_mlp": 16, "act_fn": "gelu"} if mlps else {}
    cfg = GPTConfig(**SHAPE, **with_mlps, n_layers=len(prefix))
    return Run("deep", cfg, history)


@pytest.mark.parametrize(("prefix", "mlps", "holds"), [
    ([[0, 0], [0, 0.5], [0.8, 0]], False, True),
    ([[0, 0], [0, 0.9], [0.8, 0]], False, False),
    ([[0, 0], [0, 0.9], [0.8, 0]], True, True),
    ([[0.5, 0], [0, 0], [0.8, 0]], True, False),
    ([[0, 0], [0, 0], [0.3, 0]], False, None),
    ([[0, 0], [0.8, 0]], False, None),
])  # fmt: skip
def test_the_strongest_induction_head_is_in_the_last_of_three_layers(prefix, mlps, holds):
    found = figures.EVERY["induction/depth"].find([of_depth(prefix, mlps)])
    assert found.holds is holds, found.here
    assert len(found.picture().axes) == 1


def by_role(induction=0.0, previous=0.0, current=0.0, other=0.0):
    return {"induction": {"L1H0": induction}, "previous token": {"L0H0": previous},
            "current token": {"L0H1": current}, "-": {"L1H1": other}}  # fmt: skip


def test_induction_heads_must_undo_most_of_the_change():
    assert undone(by_role(induction=-0.5, previous=0.1, other=-0.1), ["induction"]).holds
    assert not undone(by_role(induction=-0.5, other=0.6), ["induction"]).holds  # another is larger
    assert not undone(by_role(induction=0.5), ["induction"]).holds  # it is against the change
    much = undone(by_role(induction=-0.5, current=-0.7), ["induction"])
    assert not much.holds and much.share < 0.5 and much.share_of_others == 1
    both = ["induction", "previous token"]
    assert undone(by_role(induction=-0.3, previous=-0.6, other=-0.2), both).holds
    assert not undone(by_role(induction=-0.3, previous=-0.6, other=-0.2), ["induction"]).holds
