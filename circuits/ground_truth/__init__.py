"""Hand-built circuits with answers in closed form, to test detectors on.

Each class takes the sizes of a circuit. Its `model` is a small GPT in float64. Its other attributes
are answers about this model. Each answer comes from a formula, never from a run of the model. The
formulas need sharp attention: a class raises ValueError for arguments that blur it.

- Induction: K-composition: an induction head reads its keys from a previous-token head.
- PointerInduction: Q-composition: the first head writes a position, the second head attends there.
- VirtualHead: V-composition: two heads that move a token one after the other.
- SkipTrigramBug: a one-layer model that must make the mistake which the paper describes.
- AT: the token ' at' of `SkipTrigramBug`.
- BAY: the token ' bay' of `SkipTrigramBug`.
- BOS: the token at position 0 of `SkipTrigramBug`.
- IN: the token ' in' of `SkipTrigramBug`.
- KEEP: the token 'keep' of `SkipTrigramBug`.
- MIND: the token ' mind' of `SkipTrigramBug`.
- SmearedInduction: an induction head in one layer, which smeared keys make possible.
- StatisticalInduction: a head that predicts the bigram frequencies of the context.
- RotaryInduction: induction with rotary positions, exact also where attention is blurred.
- InductionAmongDistractors: `Induction` with random heads beside its two heads.
- rotated: the same model with its residual stream in another basis.
- regauged: the same model with every head in another basis of d_head.
- InductionExercise: the last of Anthropic's Transformer Circuit Exercises, solved.
- PointerInductionExercise: the exercise on pointers, solved.
- VirtualHeadExercise: the exercise on virtual heads, solved.
- at_initialisation: the same architecture with untrained weights, as a control.
- LEAK: the largest attention to a source that the head does not seek.
"""

from circuits.ground_truth.controls import at_initialisation
from circuits.ground_truth.disguises import InductionAmongDistractors, regauged, rotated
from circuits.ground_truth.exercises import (
    InductionExercise,
    PointerInductionExercise,
    VirtualHeadExercise,
)
from circuits.ground_truth.k_composition import Induction
from circuits.ground_truth.q_composition import PointerInduction
from circuits.ground_truth.rotary import RotaryInduction
from circuits.ground_truth.scaffold import LEAK
from circuits.ground_truth.skip_trigrams import AT, BAY, BOS, IN, KEEP, MIND, SkipTrigramBug
from circuits.ground_truth.smeared_keys import SmearedInduction
from circuits.ground_truth.statistical import StatisticalInduction
from circuits.ground_truth.v_composition import VirtualHead

__all__ = [
    "AT",
    "BAY",
    "BOS",
    "IN",
    "KEEP",
    "LEAK",
    "MIND",
    "Induction",
    "InductionAmongDistractors",
    "InductionExercise",
    "PointerInduction",
    "PointerInductionExercise",
    "RotaryInduction",
    "SkipTrigramBug",
    "SmearedInduction",
    "StatisticalInduction",
    "VirtualHead",
    "VirtualHeadExercise",
    "at_initialisation",
    "regauged",
    "rotated",
]
