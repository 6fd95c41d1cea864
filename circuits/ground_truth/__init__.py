"""Hand-built circuits whose answers are known in closed form, to test detectors on.

Each builder returns a GPT in float64 that is small enough to read. Its answers are what is true of
that model, by a formula: no answer is found by running the model. An answer needs sharp attention,
and a builder refuses arguments that blur it.

- induction: K-composition: a previous-token head and an induction head that reads its keys from
    it.
- induction_answers: the answers of `induction`, for the same arguments.
- InductionAnswers: the type of these answers.
- pointer_induction: Q-composition: a token points to the position where the next head looks.
- pointer_induction_answers: the answers of `pointer_induction`.
- PointerInductionAnswers: the type of these answers.
- virtual_head: V-composition: two heads that move a token one after the other.
- virtual_head_answers: the answers of `virtual_head`.
- VirtualHeadAnswers: the type of these answers.
- skip_trigram_bug: a one-layer model that must make a mistake, as the paper says.
- skip_trigram_bug_answers: the answers of `skip_trigram_bug`.
- SkipTrigramAnswers: the type of these answers.
- AT: the token ' at' of `skip_trigram_bug`.
- BAY: the token ' bay' of `skip_trigram_bug`.
- BOS: the token at position 0 of `skip_trigram_bug`.
- IN: the token ' in' of `skip_trigram_bug`.
- KEEP: the token 'keep' of `skip_trigram_bug`.
- MIND: the token ' mind' of `skip_trigram_bug`.
- smeared_induction: an induction head in one layer, which smeared keys make possible.
- smeared_induction_answers: the answers of `smeared_induction`.
- SmearedInductionAnswers: the type of these answers.
- statistical_induction: a head that predicts by how often tokens followed one another so far.
- statistical_induction_answers: the answers of `statistical_induction`.
- StatisticalInductionAnswers: the type of these answers.
- induction_among_distractors: `induction` among heads that do nothing useful.
- induction_among_distractors_answers: the answers of `induction_among_distractors`.
- DistractedInductionAnswers: the type of these answers.
- rotated: the same model with its residual stream in another basis.
- regauged: the same model with the inner basis of every head changed.
- exercise_induction: the first of Anthropic's Transformer Circuit Exercises, solved.
- exercise_induction_answers: the answers of `exercise_induction`.
- InductionExerciseAnswers: the type of these answers.
- exercise_pointer_induction: the exercise on pointers, solved.
- exercise_pointer_induction_answers: the answers of `exercise_pointer_induction`.
- exercise_virtual_head: the exercise on virtual heads, solved.
- exercise_virtual_head_answers: the answers of `exercise_virtual_head`.
- VirtualHeadExerciseAnswers: the type of these answers.
- LEAK: the most attention that may go to a source that nothing seeks.
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
