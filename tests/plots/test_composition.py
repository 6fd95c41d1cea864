"""Pictures of composition show what exceeds chance, and nothing else."""

import numpy as np
import pytest

from analyses import head_composition, plots
from tests.conftest import tiny
from tests.decomposition.initialised import initialised


def test_heatmaps_share_a_scale_centred_on_chance_and_hatch_what_random_models_reach():
    result = head_composition.over_chance(tiny(n_layers=3))
    axes = plots.composition(result)
    assert [ax.get_title() for ax in axes[0]] == ["via Q", "via K", "via V"]
    limits = {ax.collections[0].get_clim() for ax in axes[0]}
    (low, high), *others = limits
    assert not others and low == -high
    assert high == pytest.approx(float(abs(result).max()))
    hatched = [len(ax.collections[-1].get_paths()) for ax in axes[0]]
    known = result.notnull().sum(("writer", "reader"))
    found = (result > result.attrs["quantile"]).sum(("writer", "reader"))
    assert hatched == (known - found).values.tolist()


def test_a_picture_of_a_random_model_shows_no_finding():
    result = head_composition.over_chance(initialised(1)[0], seed=3)
    result = result.assign_attrs(quantile=float(result.max()))
    axes = plots.composition(result)
    assert axes[0, 0].collections[0].get_clim()[1] >= result.attrs["chance"] / 2
    assert not any(ax.texts for ax in axes[0])
    assert len(plots.wiring(result).lines) == 0


def test_wires_lead_from_writers_to_readers_for_every_finding():
    result = head_composition.over_chance(tiny(n_layers=3))
    ax = plots.wiring(result, colours={"L0H1": "red"})
    assert len(ax.lines) == int((result > result.attrs["quantile"]).sum())
    assert all(np.diff(line.get_xdata())[0] > 0 for line in ax.lines)
    assert {text.get_text() for text in ax.texts} == set(result.writer.values)


@pytest.mark.parametrize("plot", [plots.composition, plots.wiring])
def test_scores_that_chance_is_still_in_are_not_drawn_as_if_it_were_not(plot):
    with pytest.raises(ValueError, match="wanted composition less chance"):
        plot(head_composition.raw(tiny(), samples=1))
