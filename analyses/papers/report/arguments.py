"""The six arguments of "In-context Learning and Induction Heads" (O0), each with the figures that
bear on it."""

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
    "The figure without which it is not tested, whatever the others show."
    limit: str = ""
    "Where alone it is tested, if it is less than the claim says."
    subject: str = ""
    "Of which the figures tell, if it is less than the argument: a premise of it."

    def drawn(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries of its figures, in its own order."""
        found = {entry.name: entry for entry in entries}
        return [found[name] for name in self.figures if name in found]

    def verdict(self, found: Sequence[Entry]) -> str:
        """Whether the figures drawn for it all hold, or some, or none. An identity is no evidence,
        and a claim that cannot be tested here neither."""
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
        "Text with its documents shuffled, and models larger than those that ship. That two things "
        "come together does not say that one is the other.",
    ),
    Argument(
        "Argument 2: what moves one moves the other",
        "An architecture in which induction heads form more easily has its phase change earlier, "
        "and one layer then has one too.",
        ("induction/smeared-keys",),
        (ONE_LAYER,),
        "Seeds of the models with smeared keys, and smeared keys in larger models.",
    ),
    Argument(
        "Argument 3: what is lost without them",
        "Ablating induction heads takes in-context learning away; in small attention-only models "
        "they make most of it.",
        (
            "induction/ablation",
            "induction/full-ablation",
            "induction/ablated-score",
            "induction/ablation-on-text",
            "induction/story-without-heads",
        ),
        (ONE_LAYER, SEED, "heads that do no induction"),
        "Intervals over training, for which the histories keep too little: what is lost with all "
        "induction heads at once is measured at its end alone.",
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
        "Translation of real text: no model here reads more than one language, and the language of "
        "the toy is a permutation of tokens. That heads of the models that "
        "ship copy literally, which the other figures show, does not say that they do more.",
        "induction/pattern-matching",
        "in a toy that was trained on nothing else",
        "premise",
    ),
    Argument(
        "Argument 5: their mechanism would do more than copy",
        "An induction head seeks what a previous-token head has moved. That this would match what "
        "is merely alike just as well is the paper's reasoning; its premise can be shown.",
        (
            "framework/composition",
            "framework/key-tokens",
            "induction/prefix-evaluator",
            "induction/copying-evaluator",
        ),
        (START,),
        "The conclusion: the figures show the mechanism for equal tokens.",
        subject="premise",
    ),
    Argument(
        "Argument 6: small models tell of large ones",
        "What is seen in small attention-only models goes on smoothly to large ones.",
        (),
        (),
        "All of it: the models here have some layers and a million parameters or two, the paper's "
        "large ones 13 million to 13 billion.",
    ),
)
ELSEWHERE = (
    "Not drawn at all: the cartoons (O1, O2, O16; the framework paper's figures have the mechanism "
    "with its numbers), the columns of the Model Analysis "
    "Table for books and full-scale models (in O17 to O24), and heads of more than 16 layers "
    "that seek and lower (in A2)."
)
