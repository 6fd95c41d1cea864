"""Figures of training histories: verdicts are true of runs that have a phase change and false of
the controls."""

import functools

import numpy as np
import pytest

from analyses import dynamics, figures
from analyses.history import step_files
from analyses.papers.figures import induction
from analyses.papers.figures import runs as figure_runs
from analyses.papers.figures.runs import CONTROL, ZOO, LeftOut, pairs_of_widths, runs
from circuits import load, save
from circuits.ground_truth.controls import at_initialisation
from circuits.io import folder_of

NOT_HERE = {"induction/ablation", "induction/copying-heads"}
"What the paper found and these models do not show; the report says why."
DEPTHS = ("depth", "loss-by-index", "loss-speed", "prefix-evaluator")
RECORDS = ("index-derivative", "before-and-after", "token-losses")
UNTESTABLE = {f"induction/{name}" for name in DEPTHS + RECORDS}
"""Claims about three layers, two widths or 24 heads of later layers, which no model that ships has,
and about what the histories of these do not keep."""
UNTESTED = "not testable here"
HISTORIES = [name for name, record in figures.EVERY.items() if record.kind == "histories"]


@pytest.fixture(autouse=True, scope="module")
def read_once():
    """Histories and models from disk once for all tests: they are only read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamics, "history", functools.cache(dynamics.history))
        modules = induction.evaluators, induction.heads, induction.before_after
        for module in (*modules, induction.without_heads, figure_runs):
            patch.setattr(module, "load", LOADED)
        patch.setattr(induction.without_heads, "WINDOWS", 150)
        yield


LOADED = functools.cache(load)


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


@pytest.mark.parametrize("name", HISTORIES)
def test_every_figure_of_histories_holds_where_it_should_and_on_no_control(name):
    drawing = figures.draw(name)
    assert drawing.caption and drawing.title and "https://" in drawing.source
    assert drawing.verdict.paper and drawing.verdict.here
    assert len(drawing.figure.axes) > 0 if drawing.figure else drawing.verdict.state == UNTESTED
    wanted = "does not hold" if name in NOT_HERE else "holds"
    wanted = UNTESTED if name in UNTESTABLE else wanted
    assert drawing.verdict.state == wanted, drawing.verdict.here
    control = figures.draw(name, CONTROL)
    assert not control.verdict.holds, control.verdict.here


@pytest.mark.parametrize("name", ["phase-change", "before-and-after", "prefix-evaluator", "depth"])
def test_nothing_holds_of_a_run_that_ended_too_early(name, stillborn):
    early = figures.draw(f"induction/{name}", stillborn)
    assert not early.verdict.holds, early.verdict.here


def test_runs_know_what_they_can_show():
    of = runs(ZOO)
    assert [run.able for run in of] == [True, True, True, False]
    assert not pairs_of_widths(of)


def test_what_has_no_history_is_left_out(stillborn):
    with pytest.raises(LeftOut, match="repeats-2l has no history"):
        figures.draw("induction/phase-change", "repeats-2l")
    with pytest.raises(LeftOut, match="measured on other text than its control"):
        figures.draw("induction/trajectories", stillborn)
    with pytest.raises(ValueError, match="one model or more, got none"):
        runs([])
