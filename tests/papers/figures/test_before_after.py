"""A model at both ends of its phase change, and what histories of later versions keep: verdicts are
true of runs made to show the claim and false of their opposites."""

import numpy as np
import pytest
from safetensors.torch import save_file

from analyses import figures
from analyses.history import step_files
from analyses.papers.figures.induction import before_after
from analyses.papers.figures.runs import CONTROL, runs
from circuits import load, save
from circuits.ground_truth.controls import at_initialisation
from circuits.io import folder_of

MODEL = "attn-only-1l-smeared"


def found(name, *folders):
    return figures.EVERY[f"induction/{name}"].find(runs(folders))


def copied(folder, name, **more):
    """The folder of a run that ships, whose history keeps more."""
    save(load(name), folder)
    arrays = step_files.arrays_of(folder_of(name) / step_files.FILE)
    made = {key: values(arrays["step"]).astype(np.float16) for key, values in more.items()}
    np.savez(folder / step_files.FILE, **arrays, **made)
    return str(folder)


def with_weights(folder, before, after):
    """The run with the weights of two models, before its phase change and after it."""
    copied(folder, MODEL)
    (folder / "weights").mkdir()
    window = runs([str(folder)])[0].window
    for step, model in ((window.start, before), (window.end, after)):
        half = {name: w.detach().half().contiguous() for name, w in model.state_dict().items()}
        save_file(half, folder / "weights" / f"weights-{step:08d}.safetensors")
    return str(folder)


def falling(step, size, by):
    """Noise about 1, less `by` from the middle of the window on, [step some]."""
    noise = np.random.default_rng(0).normal(size=(len(step), size))
    return 1 + 0.05 * noise - by * (step > 380)[:, None]


def test_right_repeats_gain_most_in_the_phase_change_and_lose_against_it(tmp_path, monkeypatch):
    monkeypatch.setattr(before_after, "WINDOWS", 24)
    trained, without = load(MODEL), load(MODEL)
    without.blocks[0].attn.W_O.data[1] = 0  # its induction head is silent
    shows = found("before-and-after", with_weights(tmp_path / "shows", without, trained))
    assert shows.holds, shows.here
    assert len(shows.picture().axes) > 0
    against = found("before-and-after", with_weights(tmp_path / "against", trained, without))
    assert against.holds is False, against.here
    start = at_initialisation(trained)
    never = found("before-and-after", with_weights(tmp_path / "never", start, start))
    assert never.holds is False, never.here
    for name in ("before-and-after", "token-losses"):
        nothing = found(name, MODEL)
        assert nothing.holds is None and nothing.picture is None and "no " in nothing.here


@pytest.mark.parametrize(("repeats", "others", "holds"), [(0.8, 0.1, True), (0.3, 0.2, False)])
def test_tokens_that_complete_a_repeat_must_fall_more(tmp_path, repeats, others, holds):
    right, names = before_after.story_kinds(load(MODEL))
    assert 0 < right.sum() < len(right) and 0 < (right & names).sum() < names.sum()
    by = np.where(right, repeats, others)
    folder = copied(tmp_path / "run", MODEL, story_loss=lambda s: falling(s, len(right), by))
    result = found("token-losses", folder)
    assert result.holds is holds, result.here
    assert len(result.picture().axes) == 1


@pytest.mark.parametrize(("ours", "control", "holds"),
                         [(0.3, 0.0, True), (0.3, 0.2, False), (0.0, 0.0, False)])  # fmt: skip
def test_the_gap_along_the_context_must_fall_more_than_in_the_control(
    tmp_path, ours, control, holds
):
    folders = [copied(tmp_path / name, name, window_gap=lambda s, by=by: falling(s, 40, by))
               for name, by in ((MODEL, ours), (CONTROL, control))]  # fmt: skip
    result = found("index-derivative", *folders)
    assert result.holds is holds, result.here


def test_the_fall_of_windows_has_an_interval(tmp_path):
    folder = copied(tmp_path / "run", MODEL, window_score=lambda s: falling(s, 40, 0.3))
    result = found("phase-change", folder)
    assert result.holds and "its windows fall by 0.3" in result.here
    assert len(result.picture().axes) == 1
