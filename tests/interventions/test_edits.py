"""An edit puts its values in its place, for its own thread alone."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from circuits import interventions
from circuits.interventions import apply_edits, edit, sweep
from tests.conftest import tiny
from tests.interventions.experiments import OTHER, TOKENS, caches, metric


def test_where_the_values_come_from():
    model = tiny()
    own, _ = caches(model)
    assert not interventions.zeros(own, ("z", 1)).any()
    mean = interventions.means(own, ("z", 1))
    assert torch.allclose(mean[0, 3], own["z", 1][:, 3].mean(0))
    overall = interventions.means(own, ("z", 1), by_position=False)
    assert torch.allclose(overall[0, 6], own["z", 1].mean((0, 1)))
    other = interventions.resample(own, ("z", 1), seed=3)
    same = (own["z", 1][:, None] == other[None]).flatten(2).all(-1)
    assert same.sum(0).tolist() == [1] * 4 and not same.diagonal().any()
    with pytest.raises(ValueError, match="at least 2 examples, got 1"):
        interventions.resample(model.run_with_cache(TOKENS[:1])[1], ("z", 1))


def test_frozen_patterns_hold_them_and_nothing_else():
    model = tiny()
    own, other = caches(model)
    hooks = interventions.as_hooks(interventions.frozen_patterns(model, own))
    with model.hooks(fwd_hooks=hooks):
        _, run = model.run_with_cache(OTHER)
    for layer in range(2):
        assert torch.equal(run["pattern", layer], own["pattern", layer])
    assert torch.equal(run["v", 0], other["v", 0])


def test_steering_adds_a_direction():
    model, direction = tiny(), torch.randn(12, dtype=torch.float64)
    own, _ = caches(model)
    for pos in (None, 2):
        hook = interventions.steer(direction, 1.5, pos)
        with model.hooks(fwd_hooks=[("blocks.1.hook_resid_pre", hook)]):
            _, run = model.run_with_cache(TOKENS)
        moved = run["resid_pre", 1] - own["resid_pre", 1]
        here = slice(None) if pos is None else pos
        assert torch.allclose(moved[:, here], 1.5 * direction.expand_as(moved[:, here]))
        assert pos is None or not moved[:, 3:].any()


def test_places_that_do_not_exist_are_refused():
    model = tiny()
    _, source = caches(model)
    with pytest.raises(ValueError, match=r"has no heads to choose from, so head=1"):
        edit(model, ("resid_pre", 0), source, head=1)
    with pytest.raises(ValueError, match="has 3 of head, counted from 0; got head=3"):
        edit(model, ("z", 0), source, head=3)
    with pytest.raises(ValueError, match="has 9 of pos, counted from 0; got pos=9"):
        edit(model, ("z", 0), source, pos=9)
    with pytest.raises(KeyError, match="no hook point matches"):
        edit(model, ("zz", 0), source)
    with pytest.raises(ValueError, match="outside of 9 positions"):
        sweep(model, TOKENS, [[]], metric, at=9)


def test_edits_leave_what_other_threads_run_alone():
    model = tiny()
    source, _ = caches(model)
    cell = [edit(model, ("z", 0), source)]
    with torch.no_grad(), ThreadPoolExecutor(1) as other, apply_edits(model, [cell]):
        elsewhere, here = other.submit(model, OTHER).result(), model(OTHER)
    assert torch.allclose(elsewhere, model(OTHER)) and not torch.allclose(here, model(OTHER))
