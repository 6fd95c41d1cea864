"""An argument holds only if all figures that test it do."""

from analyses import figures
from analyses.papers.figures import Verdict
from analyses.papers.report import Entry
from analyses.papers.report.arguments import ARGUMENTS


def entry(name, state) -> Entry:
    verdict = Verdict(state, "a", "b") if state else None
    return Entry(name, "", verdict=verdict, error="" if state else "it broke")


def test_an_argument_holds_only_if_all_its_figures_do():
    yes, no, untestable, broken = (entry("induction/loss-curves", state) for state in
                                   ("holds", "does not hold", "not testable here", ""))  # fmt: skip
    first = ARGUMENTS[0]
    assert first.verdict([]) == first.verdict([broken]) == "not tested"
    assert first.verdict([yes, yes]) == first.verdict([yes, untestable]) == "held"
    assert first.verdict([no]) == "did not hold"
    assert first.verdict([yes, no]) == "held in part: 1 of 2"
    law = entry("framework/erratum", "holds")
    assert first.verdict([law]) == "not tested" and first.verdict([law, no]) == "did not hold"
    fourth, needed = ARGUMENTS[3], entry("induction/pattern-matching", "holds")
    assert fourth.verdict([yes]) == "not tested"
    assert fourth.verdict([yes, needed]) == (
        "premise held in toys that were trained on nothing else"
    )
    assert ARGUMENTS[4].verdict([yes]) == "premise held"
    assert ARGUMENTS[4].verdict([yes, no]) == "premise held in part: 1 of 2"
    assert ARGUMENTS[4].verdict([untestable]) == "not tested"
    assert ARGUMENTS[5].verdict([]) == "not testable here"


def test_every_figure_that_an_argument_names_can_be_drawn():
    assert {name for one in ARGUMENTS for name in one.figures} <= set(figures.every())
