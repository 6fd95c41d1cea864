"""The phase change is found where it was put; slopes and paths are exact."""

import numpy as np
import pytest
import xarray
from xarray import DataArray, Dataset

from analyses import dynamics, in_context, recording

STEPS = np.array(recording.history_steps(4000))
ABLE = ("attn-only-2l", "attn-only-2l-seed1", "attn-only-1l-smeared")


def scored(score: np.ndarray) -> Dataset:
    named = DataArray(score, dims="step", coords={"step": STEPS})
    return Dataset({"in_context_score": named})


def ramp(start: float, end: float, fall: float, noise: float = 0.03, seed: int = 0) -> Dataset:
    """A score that falls between two steps, in noise."""
    shape = np.clip((STEPS - start) / (end - start), 0, 1)
    return scored(-fall * shape + np.random.default_rng(seed).normal(0, noise, len(STEPS)))


@pytest.mark.parametrize("seed", range(4))
def test_a_phase_change_is_found_where_it_was_put(seed):
    start, end = 1120, 1880
    found = dynamics.phase_change(ramp(start, end, 0.35, 0.01, seed))
    gap = np.diff(STEPS)[-2]
    assert found and abs(found.start - start) <= 2 * gap and abs(found.end - end) <= 2 * gap
    assert found.before == pytest.approx(0, abs=0.01)
    assert found.after == pytest.approx(-0.35, abs=0.01)
    noisy = dynamics.phase_change(ramp(start, end, 0.35, 0.04, seed))
    assert noisy and noisy.start < 1500 < noisy.end
    exact = dynamics.phase_change(ramp(STEPS[70], STEPS[90], 0.3, 0.0))
    assert exact and (exact.start, exact.end) == (STEPS[70], STEPS[90])


@pytest.mark.parametrize(
    ("history", "why"),
    [
        (ramp(1000, 1800, 0.12, 0.01), "it falls too little"),
        (ramp(0, 4000, 0.5, 0.01), "it falls all the time"),
        (ramp(1000, 1800, -0.4, 0.01), "it rises"),
        (ramp(1000, 1800, 0.2, 0.3), "noise alone could have done it"),
        (ramp(1000, 1800, 0.0, 0.1), "there is nothing but noise"),
        (ramp(1000, 1800, 0.4).isel(step=slice(0, 7)), "there are too few records"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_phase_change_is_none(history, why):
    assert dynamics.phase_change(history) is None, why


def test_of_the_models_that_ship_all_but_one_plain_layer_have_one():
    for name in ("attn-only-0l", "attn-only-1l"):
        assert dynamics.phase_change(dynamics.history(name)) is None
    for name in ABLE:
        history = dynamics.history(name)
        found = dynamics.phase_change(history)
        assert found is not None
        early = history.sel(step=slice(0, found.start))
        assert dynamics.phase_change(early) is None  # a run that was cut off before
        formed = dynamics.formed(history)
        assert found.start < float(formed.min()) < found.end


def test_slopes_by_log_are_exact_on_logarithms():
    index, tokens = np.arange(1, 257), np.geomspace(1e5, 1e7, 40)
    loss = DataArray(5 - 0.3 * np.log(index), dims="index", coords={"index": index})
    np.testing.assert_allclose(in_context.slope(in_context.by_log_index(loss)), -0.3)
    held_out = DataArray(5 - 0.7 * np.log([1.0, *tokens]), dims="step",
                         coords={"tokens": ("step", [0.0, *tokens])})  # fmt: skip
    speed = dynamics.loss_speed(Dataset({"held_out": held_out}))
    np.testing.assert_allclose(speed.dropna("step"), -0.7, atol=1e-6)
    assert np.isnan(speed[0]) and np.isnan(speed[-1])


def test_paths_keep_all_distances_of_what_lies_in_a_plane():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(2, 30))
    losses = [DataArray(rng.normal(size=(n, 2)) @ plane + 4, dims=("step", "token"),
                        coords={"step": np.arange(n)}) for n in (5, 8)]  # fmt: skip
    ways = dynamics.trajectories(losses)
    before, after = (np.concatenate([one.values for one in which]) for which in (losses, ways))
    apart = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (before, after)]
    np.testing.assert_allclose(apart[0] / np.sqrt(30), apart[1], atol=1e-6)
    assert sum(ways[0].attrs["explained"]) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"losses of the same tokens, got \[30, 29\]"):
        dynamics.trajectories([losses[0], losses[1][:, 1:]])


def test_roles_are_by_the_scores_at_the_end():
    scores = {"prefix_matching": [[0.0, 0.9], [0.1, 0.4]], "previous_token": [[0.8, 0.9], [0.2, 0]]}
    data = {name: (("step", "layer", "head"), [np.zeros((2, 2)), values])
            for name, values in scores.items()}  # fmt: skip
    named = dynamics.roles(xarray.Dataset(data)).values.tolist()
    assert named == [["previous token", "induction"], ["-", "-"]]
    current = xarray.DataArray([[0.9, 0.9], [0.3, 0.5]], dims=("layer", "head"))
    with_current = [["current token", "induction"], ["-", "current token"]]
    assert dynamics.roles(xarray.Dataset(data), current).values.tolist() == with_current
    data["current_token"] = ("step", "layer", "head"), [np.zeros((2, 2)), current.values]
    assert dynamics.roles(xarray.Dataset(data)).values.tolist() == with_current
