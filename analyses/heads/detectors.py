"""Every detector of heads with the threshold from which it speaks, in one table.

On untrained models all are silent, and on hand-built circuits they say what is there:
tests/laws/test_silence.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from xarray import DataArray

from analyses.heads import attention, copying, induction, patterns
from circuits.model import GPT


class Detector(NamedTuple):
    """A score, (layer, head), and the threshold that a head of this kind exceeds."""

    score: Callable[[GPT], DataArray]
    threshold: float
    source: str
    "Where the threshold is from."


ARENA = "ARENA's exercises: most of what it sees, and more than any head has at 0.5"
HALF = "ours: halfway between chance, 0, and what a perfect head has, 1"
DETECTORS: dict[str, Detector] = {
    "previous token": Detector(attention.previous_token, attention.THRESHOLD, ARENA),
    "current token": Detector(attention.current_token, attention.THRESHOLD, ARENA),
    "first token": Detector(attention.first_token, attention.THRESHOLD, ARENA),
    "duplicate token": Detector(attention.duplicate_token, attention.THRESHOLD, ARENA),
    "induction": Detector(attention.prefix_matching, attention.THRESHOLD, ARENA),
    "stripe": Detector(induction.stripe, attention.THRESHOLD, ARENA),
    "positional": Detector(attention.positional, attention.THRESHOLD, ARENA),
    "fixed offset": Detector(patterns.fixed_offset, 0.9, "Voita et al. 2019"),
    "sink": Detector(patterns.sink, 0.5, "ours: in most prompts, with the epsilon of Gu et al."),
    "copying": Detector(induction.copying, 0.2, "ours: five times chance, one in 25 tokens"),
    "OV copying": Detector(copying.score, 0.5, HALF),
    "QK matching": Detector(copying.qk_score, 0.5, HALF),
}


def above(model: GPT) -> DataArray:
    """Which detector speaks for which head, (detector, layer, head), true or false.

    The coordinate `score` of the same dims is what each says, `threshold` (detector) from where on,
    and `positions` (detector) how many positions it was judged on, 0 for one of weights alone. Set
    model.trained_ctx where the model was trained on fewer than n_ctx.
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
        name="above",
        attrs={"long_name": "above the threshold"},
    )
