"""The six arguments of "In-context Learning and Induction Heads" (O0), each with the figures that
test it."""

from collections.abc import Sequence
from dataclasses import dataclass

from analyses.papers.report.entries import Entry

FILE = "arguments.html"
ONE_LAYER = "one plain layer, which cannot do induction"
SEED = "a second seed of two layers"
START = "the same architecture at initialisation"


@dataclass(frozen=True)
class Argument:
    """One of the paper's arguments, the figures that are its evidence here, and its controls."""

    title: str
    claim: str
    figures: Sequence[str]
    controls: Sequence[str]
    untested: str
    needs: str = ""
    "The figure that must be drawn, else the argument counts as not tested."
    limit: str = ""
    "The only case that is tested, if the claim says more."
    subject: str = ""
    "The part of the argument that the figures test, if they do not test all of it."

    def drawn(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries of its figures, in its own order."""
        found = {entry.name: entry for entry in entries}
        return [found[name] for name in self.figures if name in found]

    def verdict(self, found: Sequence[Entry]) -> str:
        """Whether all figures drawn for it hold, or some, or none. An identity is no evidence. A
        claim that cannot be tested here is no evidence either."""
        if not self.figures:
            return "not testable here"
        holds = [entry.kind == "holds" for entry in found
                 if entry.kind in ("holds", "does not hold")]  # fmt: skip
        needed = [entry for entry in found if entry.name == self.needs and entry.verdict]
        if not holds or (self.needs and not needed):
            return "not tested"
        if all(holds):
            words = f"held {self.limit}".strip()
        else:
            part = f"held in part: {sum(holds)} of {len(holds)}"
            words = part if any(holds) else "did not hold"
        return f"{self.subject} {words}".strip()


ARGUMENTS = (
    Argument(
        "Argument 1: they come at the same time",
        "Transformers go through a phase change early in training, in which induction heads form "
        "and in-context learning improves abruptly.",
        (
            "induction/phase-change",
            "induction/index-derivative",
            "induction/heads-over-training",
            "induction/loss-curves",
            "induction/trajectories",
            "induction/before-and-after",
            "induction/token-losses",
            "induction/score-choice",
            "induction/model-analysis",
        ),
        (ONE_LAYER, SEED),
        "Text with its documents shuffled, and models larger than the models that ship. Two things "
        "that come at the same time need not be the same thing.",
    ),
    Argument(
        "Argument 2: what moves one moves the other",
        "An architecture in which induction heads form more easily has its phase change earlier, "
        "and with it one layer has a phase change too.",
        ("induction/smeared-keys",),
        (ONE_LAYER,),
        "Seeds of the models with smeared keys, and smeared keys in larger models.",
    ),
    Argument(
        "Argument 3: in-context learning is lost without them",
        "The ablation of induction heads takes in-context learning away; in small attention-only "
        "models induction heads make most of it.",
        (
            "induction/ablation",
            "induction/full-ablation",
            "induction/ablated-score",
            "induction/ablation-on-text",
            "induction/story-without-heads",
        ),
        (ONE_LAYER, SEED, "heads that do no induction"),
        "Intervals over training, for which the histories keep too little. The ablation of all "
        "induction heads together is measured only at the end of training.",
    ),
    Argument(
        "Argument 4: they do more than copy",
        "Heads that copy literally also do it in the abstract: translate, or match patterns.",
        (
            "induction/pattern-matching",
            "induction/cipher",
            "induction/literal-copying",
            "induction/copying-heads",
            "induction/prefix-and-copying",
        ),
        (ONE_LAYER, START),
        "Translation of real text: no model here reads more than one language, and the other "
        "language of the toy is a permutation of tokens. The other figures show that heads of the "
        "models that ship copy literally; this does not show that they do more.",
        "induction/pattern-matching",
        "in toys that were trained on nothing else",
        "premise",
    ),
    Argument(
        "Argument 5: their mechanism would do more than copy",
        "An induction head seeks the token that a previous-token head has moved. The paper argues "
        "that the same mechanism would also match tokens that are only similar. The figures can "
        "show the premise.",
        (
            "framework/composition",
            "framework/key-tokens",
            "induction/prefix-evaluator",
            "induction/copying-evaluator",
        ),
        (START,),
        "The conclusion: the figures show the mechanism only for equal tokens.",
        subject="premise",
    ),
    Argument(
        "Argument 6: small models tell of large ones",
        "The findings in small attention-only models go on smoothly to large models.",
        (),
        (),
        "All of it: the models here have a few layers and one or two million parameters; the "
        "paper's large models have 13 million to 13 billion.",
    ),
)
ELSEWHERE = (
    "Not drawn at all: the cartoons (O1, O2, O16; the framework paper's figures show the mechanism "
    "with its numbers), the columns of the Model Analysis Table for books and full-scale models "
    "(in O17 to O24), and the heads of models with more than 16 layers that match prefixes and "
    "lower the attended token (in A2)."
)
