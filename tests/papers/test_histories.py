"""Figures of training histories: the phase change is found where it was put, and their verdicts are
true of runs that have one and false of the controls."""

import functools
import shutil

import numpy as np
import pytest
import xarray
from xarray import DataArray, Dataset

from analyses import dynamics, figures, in_context, recording
from analyses.history import step_files
from analyses.papers.figures.drawing import LeftOut
from analyses.papers.figures.runs import CONTROL, ZOO, runs
from circuits import load, save
from circuits.ground_truth.controls import at_initialisation
from circuits.io import folder_of

STEPS = np.array(recording.history_steps(4000))
NOT_HERE = {"induction/ablated-score", "induction/loss-by-index", "induction/loss-speed"}
"What the paper found and these models do not show; the report says why."


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """Histories and models from disk once for all tests: they are only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamics, "history", functools.cache(dynamics.history))
        for module in (
            figures.induction.ablation,
            figures.induction.evaluators,
            figures.induction.heads,
            figures.induction.tokens,
        ):
            patch.setattr(module, "load", LOADED)
        yield


LOADED = functools.cache(load)


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
    for name in ("attn-only-0l", CONTROL):
        assert dynamics.phase_change(dynamics.history(name)) is None
    for name in ZOO[:3]:
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
    with pytest.raises(ValueError, match=r"same tokens in every run, got \[30, 29\]"):
        dynamics.trajectories([losses[0], losses[1][:, 1:]])


def test_roles_are_by_the_scores_at_the_end():
    scores = {"prefix_matching": [[0.0, 0.9], [0.1, 0.4]], "previous_token": [[0.8, 0.9], [0.2, 0]]}
    data = {name: (("step", "layer", "head"), [np.zeros((2, 2)), values])
            for name, values in scores.items()}  # fmt: skip
    named = dynamics.roles(xarray.Dataset(data)).values.tolist()
    assert named == [["previous token", "induction"], ["-", "induction"]]


def test_correlation_is_exact_and_silent_about_few_heads():
    x = DataArray(np.arange(8.0).reshape(2, 4))
    assert figures.induction.evaluators.correlation([(x, 3 * x + 1)]) == pytest.approx((1, 1, 1))
    assert figures.induction.evaluators.correlation([(x, -x)])[0] == pytest.approx(-1)
    assert np.isnan(figures.induction.evaluators.correlation([(x[:1], x[:1])])).all()


@pytest.fixture(scope="module")
def stillborn(tmp_path_factory):
    """The folder of a two-layer run that ended before anything formed."""
    folder = tmp_path_factory.mktemp("runs") / "stillborn"
    save(at_initialisation(load("attn-only-2l")), folder)
    with np.load(folder_of("attn-only-2l") / step_files.FILE) as file:
        arrays = {name: file[name] for name in file.files}
    cut = {name: values[:60] if len(values) == len(arrays["step"]) else values
           for name, values in arrays.items()}  # fmt: skip
    cut["ablated_along"] = cut["ablated_along"][..., :60]
    cut["step_loss"] = arrays["step_loss"][: cut["step"][-1]]
    np.savez(folder / step_files.FILE, **cut)
    return str(folder)


@pytest.mark.parametrize("name", figures.HISTORIES)
def test_every_figure_of_histories_holds_where_it_should_and_on_no_control(name, stillborn):
    drawing = figures.draw(name)
    assert drawing.caption and drawing.title and "https://" in drawing.source
    assert "paper:" in drawing.verdict.says and "; here" in drawing.verdict.says
    assert drawing.verdict.holds == (name not in NOT_HERE), drawing.verdict.says
    control = figures.draw(name, CONTROL)
    assert not control.verdict.holds, control.verdict.says


@pytest.mark.parametrize("name", ["phase-change", "before-and-after", "prefix-evaluator", "depth"])
def test_nothing_holds_of_a_run_that_ended_too_early(name, stillborn):
    early = figures.draw(f"induction/{name}", stillborn)
    assert not early.verdict.holds, early.verdict.says


def test_a_run_is_shown_beside_its_control(stillborn):
    assert figures.drawn_from("induction/phase-change") == ZOO
    assert figures.drawn_from("induction/phase-change", stillborn) == (stillborn, CONTROL)
    assert figures.drawn_from("induction/phase-change", CONTROL) == (CONTROL,)
    assert set(figures.drawn_from("induction/smeared-keys", stillborn)) == {stillborn, *ZOO[2:]}
    assert [run.able for run in runs(ZOO)] == [True, True, True, False]


def test_what_has_no_history_is_left_out_and_what_is_not_there_is_an_error(tmp_path, stillborn):
    with pytest.raises(LeftOut, match="repeats-2l has no history"):
        figures.draw("induction/phase-change", "repeats-2l")
    with pytest.raises(LeftOut, match="measured on other text than its control"):
        figures.draw("induction/trajectories", stillborn)
    with pytest.raises(KeyError, match="no model 'nowhere'"):
        figures.draw("induction/phase-change", "nowhere")
    with pytest.raises(ValueError, match="not drawn from a GPT"):
        figures.draw("induction/phase-change", load("attn-only-0l"))
    with pytest.raises(KeyError, match="no figure 'induction/phase'"):
        figures.draw("induction/phase")
    silent = tmp_path / "silent"
    shutil.copytree(stillborn, silent)
    (silent / "tokenizer.json").unlink()
    with pytest.raises(LeftOut, match="reads other tokens"):
        figures.draw("induction/before-and-after", str(silent))
    with pytest.raises(LeftOut, match="no tokenizer"):
        figures.draw("induction/ablation-on-text", str(silent))
