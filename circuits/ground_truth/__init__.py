"""Hand-built circuits whose answers are known in closed form, to test detectors on.

Each function returns a GPT, float64 and small enough to read, and beside it `..._answers` of the
same arguments returns what is true of it, by formula and never by running it.

- `induction`, `pointer_induction`, `virtual_head`: K-, Q- and V-composition, one head per layer.
- `skip_trigram_bug`, `smeared_induction`: what one layer cannot do, and can with smeared keys.
- `statistical_induction`: in-context bigram frequencies.
- `induction_among_distractors`, `rotated`, `regauged`: the same circuit in disguise.
- `exercise_...`: the Transformer Circuit Exercises, solved.

Answers want sharp scores, and arguments that blur them are refused: see `LEAK`.
"""

from circuits.ground_truth.disguises import (
    DistractedInductionAnswers,
    induction_among_distractors,
    induction_among_distractors_answers,
    regauged,
    rotated,
)
from circuits.ground_truth.exercises import (
    InductionExerciseAnswers,
    VirtualHeadExerciseAnswers,
    exercise_induction,
    exercise_induction_answers,
    exercise_pointer_induction,
    exercise_pointer_induction_answers,
    exercise_virtual_head,
    exercise_virtual_head_answers,
)
from circuits.ground_truth.k_composition import InductionAnswers, induction, induction_answers
from circuits.ground_truth.q_composition import (
    PointerInductionAnswers,
    pointer_induction,
    pointer_induction_answers,
)
from circuits.ground_truth.scaffold import LEAK
from circuits.ground_truth.skip_trigrams import (
    AT,
    BAY,
    BOS,
    IN,
    KEEP,
    MIND,
    SkipTrigramAnswers,
    skip_trigram_bug,
    skip_trigram_bug_answers,
)
from circuits.ground_truth.smeared_keys import (
    SmearedInductionAnswers,
    smeared_induction,
    smeared_induction_answers,
)
from circuits.ground_truth.statistical import (
    StatisticalInductionAnswers,
    statistical_induction,
    statistical_induction_answers,
)
from circuits.ground_truth.v_composition import (
    VirtualHeadAnswers,
    virtual_head,
    virtual_head_answers,
)

__all__ = [
    "AT",
    "BAY",
    "BOS",
    "IN",
    "KEEP",
    "LEAK",
    "MIND",
    "DistractedInductionAnswers",
    "InductionAnswers",
    "InductionExerciseAnswers",
    "PointerInductionAnswers",
    "SkipTrigramAnswers",
    "SmearedInductionAnswers",
    "StatisticalInductionAnswers",
    "VirtualHeadAnswers",
    "VirtualHeadExerciseAnswers",
    "exercise_induction",
    "exercise_induction_answers",
    "exercise_pointer_induction",
    "exercise_pointer_induction_answers",
    "exercise_virtual_head",
    "exercise_virtual_head_answers",
    "induction",
    "induction_among_distractors",
    "induction_among_distractors_answers",
    "induction_answers",
    "pointer_induction",
    "pointer_induction_answers",
    "regauged",
    "rotated",
    "skip_trigram_bug",
    "skip_trigram_bug_answers",
    "smeared_induction",
    "smeared_induction_answers",
    "statistical_induction",
    "statistical_induction_answers",
    "virtual_head",
    "virtual_head_answers",
]
