"""Every detector of heads, with the threshold above which it counts a head as found.

In untrained models no detector finds a head. In hand-built circuits the detectors find the built
heads: tests/laws/test_silence.py.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from xarray import DataArray

from analyses.heads import attention, copying, induction, patterns
from analyses.heads.masks import BEHAVIOURS
from circuits.model import GPT


class Detector(NamedTuple):
    """A score, (layer, head), and its threshold: a head of this kind has a larger score."""

    score: Callable[[GPT], DataArray]
    threshold: float
    source: str
    "The source of the threshold."


ARENA = "ARENA's exercises: most of what it sees, and more than any head has at 0.5"
HALF = "ours: halfway between chance, 0, and what a perfect head has, 1"
DETECTORS: dict[str, Detector] = {
    **{
        name: Detector(partial(attention.behaviour, name=name), attention.THRESHOLD, ARENA)
        for name in BEHAVIOURS
    },
    "stripe": Detector(induction.stripe, attention.THRESHOLD, ARENA),
    "positional": Detector(attention.positional, attention.THRESHOLD, ARENA),
    "fixed offset": Detector(patterns.fixed_offset, 0.9, "Voita et al. 2019"),
    "sink": Detector(patterns.sink, 0.5, "ours: in most prompts, with the epsilon of Gu et al."),
    "copying": Detector(induction.copying, 0.2, "ours: five times chance, one in 25 tokens"),
    "OV copying": Detector(copying.score, 0.5, HALF),
    "QK matching": Detector(copying.qk_score, 0.5, HALF),
}


def is_above_threshold(model: GPT) -> DataArray:
    """Whether a detector's score of a head is above its threshold, (detector, layer, head).

    Coordinates: `score`, of the same dims; `threshold` (detector); and `positions` (detector), the
    number of positions of the detector's prompt, 0 for a detector that reads only weights. Set
    model.trained_ctx if the model was trained on fewer than n_ctx positions.
    """
    found = [one.score(model) for one in DETECTORS.values()]
    scores = np.stack([score.values for score in found])
    thresholds = np.array([one.threshold for one in DETECTORS.values()])
    dims = ("detector", "layer", "head")
    return DataArray(
        scores > thresholds[:, None, None],
        dims=dims,
        coords={
            "detector": list(DETECTORS),
            "threshold": ("detector", thresholds),
            "positions": ("detector", [score.attrs.get("positions", 0) for score in found]),
            "score": (dims, scores),
            "label": found[0].label,
        },
        name="is_above_threshold",
        attrs={"long_name": "above the threshold"},
    )
