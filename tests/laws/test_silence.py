"""Detectors speak on what they are for, and not on models that learned nothing."""

import pytest

from analyses import detectors
from circuits import GPT, GPTConfig, ground_truth


@pytest.mark.parametrize(("positions", "models"), [("standard", 10), ("rotary", 2)])
def test_on_four_hundred_untrained_heads_hardly_a_detector_speaks(positions, models):
    """At most 1 in 100 head-score pairs, of ten models, and of two with rotary positions. The
    vocabulary is twice the longest prompt, so that its tokens are distinct: with few, all are
    duplicates, and any head would attend to some. Weights are ten times the usual, so that the
    heads are far from uniform."""
    spoken = 0
    for seed in range(models):
        model = GPT(GPTConfig(n_layers=1, n_heads=40, d_model=32, d_head=16, d_vocab=96, n_ctx=48,
                              init_range=0.2, seed=seed,
                              positional_embedding_type=positions)).eval()  # fmt: skip
        spoken += detectors.is_above_threshold(model).values.sum()
    pairs = models * 40 * len(detectors.DETECTORS)
    assert spoken <= pairs / 100


def test_detectors_speak_on_the_circuit_they_are_for_and_say_why():
    above = detectors.is_above_threshold(ground_truth.Induction().model)
    assert above.sel(detector="previous token").values.tolist() == [[True], [False]]
    assert above.sel(detector="induction").values.tolist() == [[False], [True]]
    assert above.sel(detector="OV copying").values.tolist() == [[False], [True]]
    again = above.score > above.threshold
    assert (again == above).all() and all(one.source for one in detectors.DETECTORS.values())
