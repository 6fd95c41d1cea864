"""The record of a figure: which models it shows, what it refuses, and the state of its verdict."""

from dataclasses import replace

import pytest

from analyses import figures
from analyses.papers.figures.record import Finding, figure, together
from analyses.papers.figures.runs import CONTROL, ZOO, one_layer, text_models, two_layers
from circuits import GPTConfig, load
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


@pytest.mark.parametrize(
    ("holds", "whole"),
    [([True, True], True), ([True, False], False), ([True, None], True), ([None, False], False),
     ([None, None], None), ([None], None)],
)  # fmt: skip
def test_a_claim_holds_if_it_does_in_every_model_that_can_be_judged(holds, whole):
    found = {f"model {i}": finding(one) for i, one in enumerate(holds)}
    one = together(found)
    assert one.holds is whole and one.picture is found["model 0"].picture
    if len(holds) > 1:
        assert all(name in one.here for name in found)
        assert one.here.count("not testable there") == holds.count(None)


def test_a_figure_without_a_model_is_judged_on_all_that_read_text_and_fit():
    asked = []
    record = replace(by_hand, find=lambda model: asked.append(model) or finding(True),
                     layers=0)  # fmt: skip
    assert record.judged() == ("attn-only-2l", "attn-only-2l-seed1")
    verdict = record.verdict(record.finding("", lambda name: tiny(n_layers=len(name) % 3)))
    assert verdict.holds and len(asked) == 2 and "in attn-only-2l-seed1: b" in verdict.here
    assert record.judged("attn-only-1l") == ("attn-only-1l",)
    assert record.verdict(record.finding(tiny())).here == "b"
    assert replace(record, illustration=True).judged() == ("attn-only-2l",)


def test_a_toy_is_judged_on_all_of_its_seeds_and_drawn_from_the_first():
    made = {seed: finding(seed != 5) for seed in (3, 4, 5)}
    record = replace(by_hand, find=lambda seed: made[seed], kind="toy", models=(), seeds=(3, 4))
    found = record.finding()
    assert found.holds and found.here == "in seed 3: b; in seed 4: b"
    assert found.picture is made[3].picture
    assert replace(record, seeds=(3, 4, 5)).finding().holds is False


def test_models_that_fit_read_text_and_are_of_the_depth_of_the_claim():
    assert text_models(one_layer) == ["attn-only-1l"]  # of one layer, without smeared keys
    deep = GPTConfig(n_layers=3, d_model=4, n_heads=1, d_head=4, d_vocab=4, n_ctx=4)
    assert two_layers(deep) and not one_layer(deep)
    neurons = replace(deep, d_mlp=4, act_fn="gelu")
    assert not two_layers(neurons)


def test_an_illustration_has_no_verdict():
    shown = replace(by_hand, illustration=True)
    verdict = shown.verdict(finding(True))
    assert verdict.state == "illustration" and not verdict.holds
    pairs = {name: record.same_as for name, record in figures.EVERY.items() if record.same_as}
    assert set(pairs.values()) <= set(figures.EVERY) - set(pairs)


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
