"""Hand-built circuits whose answers are known in closed form, to test detectors on.

Each class takes the sizes of a circuit. Its `model` is a GPT in float64 that is small enough to
read; its other attributes are true of that model, each by a formula: no answer is found by running
the model. An answer needs sharp attention, and a class refuses arguments that blur it.

- Induction: K-composition: a previous-token head and an induction head that reads its keys from
    it.
- PointerInduction: Q-composition: a token points to the position where the next head looks.
- VirtualHead: V-composition: two heads that move a token one after the other.
- SkipTrigramBug: a one-layer model that must make a mistake, as the paper says.
- AT: the token ' at' of `SkipTrigramBug`.
- BAY: the token ' bay' of `SkipTrigramBug`.
- BOS: the token at position 0 of `SkipTrigramBug`.
- IN: the token ' in' of `SkipTrigramBug`.
- KEEP: the token 'keep' of `SkipTrigramBug`.
- MIND: the token ' mind' of `SkipTrigramBug`.
- SmearedInduction: an induction head in one layer, which smeared keys make possible.
- StatisticalInduction: a head that predicts by how often tokens followed one another so far.
- InductionAmongDistractors: `Induction` among heads that do nothing useful.
- rotated: the same model with its residual stream in another basis.
- regauged: the same model with the inner basis of every head changed.
- InductionExercise: the last of Anthropic's Transformer Circuit Exercises, solved.
- PointerInductionExercise: the exercise on pointers, solved.
- VirtualHeadExercise: the exercise on virtual heads, solved.
- at_initialisation: the same architecture before training, which has learned nothing.
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
    "SkipTrigramBug",
    "SmearedInduction",
    "StatisticalInduction",
    "VirtualHead",
    "VirtualHeadExercise",
    "at_initialisation",
    "regauged",
    "rotated",
]
