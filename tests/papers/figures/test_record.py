"""The record of a figure: which models it shows, what it refuses, and the state of its verdict."""

from dataclasses import replace

import pytest

from analyses import figures
from analyses.papers.figures.record import Finding, figure
from analyses.papers.figures.runs import CONTROL, ZOO
from circuits import load
from tests.conftest import tiny


def finding(holds, picture=lambda: pytest.fail("nobody asked for the picture")):
    return Finding(holds, "b", "a caption", picture)


@figure("framework/by-hand", "A title", "A paper, a place (F0)", "a", layers=2)
def by_hand(model) -> Finding:
    """One
    line.

    More."""
    return finding(model.cfg.n_layers == 2)


def test_a_verdict_has_three_states_and_the_words_of_both_sides():
    states = [by_hand.verdict(finding(holds)) for holds in (True, False, None)]
    assert [one.state for one in states] == ["holds", "does not hold", "not testable here"]
    assert [one.holds for one in states] == [True, False, False]
    assert {(one.paper, one.here) for one in states} == {("a", "b")}


def test_a_verdict_needs_no_picture_and_its_models_may_be_many():
    found = [by_hand.verdict(by_hand.finding(tiny(n_layers=n))).holds for n in (2, 3)]
    assert found == [True, False]


def test_a_record_says_what_is_drawn():
    assert (by_hand.paper, by_hand.summary) == ("framework", "One line.")
    with pytest.raises(ValueError, match="by-hand needs 2 layers or more, this model has 1"):
        by_hand.draw(tiny(n_layers=1))


def test_a_run_is_shown_beside_its_control():
    change, smeared = (figures.EVERY[f"induction/{name}"] for name in
                       ("phase-change", "smeared-keys"))  # fmt: skip
    assert change.shown() == ZOO
    assert change.shown("a") == ("a", CONTROL) and change.shown(CONTROL) == (CONTROL,)
    assert set(smeared.shown("a")) == {"a", *ZOO[2:]}
    assert by_hand.shown("a") == ("a",) and by_hand.shown() == ("attn-only-2l",)
    assert replace(by_hand, kind="toy", models=()).shown("a") == ()


def test_names_are_unique_and_papers_are_in_order():
    names = figures.every()
    assert len(set(names)) == len(names) == len(figures.EVERY)
    papers = [name.split("/")[0] for name in names]
    assert list(dict.fromkeys(papers)) == ["framework", "induction", "circuits"]
    assert papers == sorted(papers, key=["framework", "induction", "circuits"].index)


def test_what_is_not_there_is_an_error():
    with pytest.raises(KeyError, match="no model 'nowhere'"):
        figures.draw("induction/phase-change", "nowhere")
    with pytest.raises(ValueError, match="not drawn from a GPT"):
        figures.draw("induction/phase-change", load("attn-only-0l"))
    for refuses in (figures.draw, figures.judge):
        with pytest.raises(KeyError, match="no figure 'induction/phase'"):
            refuses("induction/phase")
    with pytest.raises(figures.LeftOut, match="trains a model of its own"):
        figures.judge("circuits/known", "attn-only-2l")
