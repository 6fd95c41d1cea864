"""The figure of a known circuit holds."""

from analyses import figures


def test_the_figure_of_a_known_circuit_holds():
    drawing = figures.draw("circuits/known")
    assert drawing.verdict.holds, drawing.verdict.here
