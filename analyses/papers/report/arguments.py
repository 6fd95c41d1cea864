"""What held and what did not: the six arguments of "In-context Learning and Induction Heads", each
with the verdicts of the figures that bear on it, as one page beside the report (O0)."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from typing import NamedTuple

from analyses.papers.report.entries import Entry
from analyses.papers.report.words import mark, models_in_html, number, paper_and_here, sentence_case

FILE = "arguments.html"
ONE_LAYER = "one plain layer, which cannot do induction"
SEED = "a second seed of two layers"
START = "the same architecture at initialisation"


class Argument(NamedTuple):
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


ARGUMENTS = (
    Argument(
        "Argument 1: they come at the same time",
        "Transformers go through a phase change early in training, in which induction heads form "
        "and in-context learning improves abruptly.",
        (
            "phase-change",
            "index-derivative",
            "heads-over-training",
            "loss-curves",
            "trajectories",
            "before-and-after",
            "token-losses",
            "score-choice",
            "model-analysis",
        ),
        (ONE_LAYER, SEED),
        "Models with MLPs and of more than two layers. Text with its documents shuffled. That two "
        "things come together does not say that one is the other.",
    ),
    Argument(
        "Argument 2: what moves one moves the other",
        "An architecture in which induction heads form more easily has its phase change earlier, "
        "and one layer then has one too.",
        ("smeared-keys",),
        (ONE_LAYER,),
        "Two layers with smeared keys; a second seed of the smeared layer.",
    ),
    Argument(
        "Argument 3: what is lost without them",
        "Ablating induction heads takes in-context learning away; in small attention-only models "
        "they make most of it.",
        ("ablation", "full-ablation", "ablated-score", "ablation-on-text"),
        (ONE_LAYER, SEED, "heads that do no induction"),
        "Ablation of several heads at once, which would show how far they stand in for each other; "
        "intervals over training, for which the histories keep too little.",
    ),
    Argument(
        "Argument 4: they do more than copy",
        "Heads that copy literally also do it in the abstract: translate, or match patterns.",
        ("pattern-matching", "literal-copying", "copying-heads", "prefix-and-copying"),
        (ONE_LAYER, START),
        "Translation: no model here reads more than one language. That heads of the models that "
        "ship copy literally, which the other figures show, does not say that they do more.",
        "pattern-matching",
        "in a model trained to do so",
    ),
    Argument(
        "Argument 5: their mechanism would do more than copy",
        "An induction head seeks what a previous-token head has moved. That this would match what "
        "is merely alike just as well is the paper's reasoning; its premise can be shown.",
        ("framework/composition", "framework/key-tokens", "prefix-evaluator", "copying-evaluator"),
        (START,),
        "The conclusion: the figures show the mechanism for equal tokens.",
    ),
    Argument(
        "Argument 6: small models tell of large ones",
        "What is seen in small attention-only models goes on smoothly to large ones.",
        (),
        (),
        "All of it: the largest model here has two layers and no MLP. So too the paper's "
        "columns for MLPs, for books, and for models of 13 million to 13 billion parameters.",
    ),
)
"Figures without a paper are of the induction paper."
ELSEWHERE = (
    "Not drawn at all: the cartoons (O1, O2, O16; the framework paper's figures have the mechanism "
    "with its numbers), the translation head's sentence (O14), the columns of the Model Analysis "
    "Table for MLPs, books and full-scale models (in O17 to O24), and heads of more than 16 layers "
    "that seek and lower (in A2)."
)


def verdict(argument: Argument, found: Sequence[Entry]) -> str:
    """What became of an argument: whether the figures drawn for it all hold, or some, or none."""
    holds = [entry.verdict.holds for entry in found if entry.verdict]
    needed = [entry for entry in found if entry.name.endswith(f"/{argument.needs}")]
    if not holds or (argument.needs and not any(entry.verdict for entry in needed)):
        return "not tested"
    if all(holds):
        return f"held {argument.limit}".strip()
    return f"held in part: {number(sum(holds))} of {number(len(holds))}" if any(holds) else (
        "did not hold"
    )  # fmt: skip


def statement(entries: Sequence[Entry]) -> str:
    """The page, of what was drawn for this report."""
    drawn = {entry.name: entry for entry in entries}
    style = (
        resources.files("analyses.papers.report").joinpath("style.css").read_text(encoding="utf-8")
    )
    each = [[drawn[name] for name in evidence(one) if name in drawn] for one in ARGUMENTS]
    rows = "".join(
        f'<tr><td><a href="#argument-{i}">{escape(one.title)}</a></td>'
        f"<td>{verdict(one, found)}</td><td>not tested</td><td>not tested</td></tr>"
        for i, (one, found) in enumerate(zip(ARGUMENTS, each, strict=True), 1)
    )
    sections = "\n".join(
        _section(i, one, found, len(evidence(one)))
        for i, (one, found) in enumerate(zip(ARGUMENTS, each, strict=True), 1)
    )
    models = models_in_html([name for found in each for entry in found for name in entry.models])
    named = {name for one in ARGUMENTS for name in evidence(one)}
    beside = [entry for entry in entries if entry.paper == "induction" and entry.name not in named]
    rest = "".join(_evidence(entry) for entry in beside) or "<li>None.</li>"
    return _PAGE.format(style=style, rows=rows, sections=sections, rest=rest, models=models,
                        elsewhere=escape(ELSEWHERE))  # fmt: skip


def evidence(argument: Argument) -> list[str]:
    """The full names of the figures that bear on it."""
    return [name if "/" in name else f"induction/{name}" for name in argument.figures]


def _section(i: int, one: Argument, found: Sequence[Entry], wanted: int) -> str:
    shown = "".join(_evidence(entry) for entry in found) or "<li>None.</li>"
    missing = wanted - len(found)
    some = f"<li>{number(missing).capitalize()} more: not in this report.</li>" if missing else ""
    controls = escape("; ".join(one.controls)) or "none"
    return (
        f'<section class="figure" id="argument-{i}"><h3>{escape(one.title)}: '
        f"{verdict(one, found)}</h3>\n<p>{escape(one.claim)}</p>\n<ul>{shown}{some}</ul>\n"
        f"<dl><dt>Controls</dt><dd>{controls}.</dd>"
        f"<dt>Not tested</dt><dd>{escape(one.untested)}</dd></dl></section>"
    )


def _evidence(entry: Entry) -> str:
    link = f'<a href="index.html#{escape(entry.name)}">{escape(entry.title or entry.name)}</a>'
    words = entry.left_out or entry.error
    if entry.verdict:
        words = paper_and_here(entry.verdict.says)[1]
    return f"<li>{mark(entry)} {link}. {escape(sentence_case(words))}.</li>"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>circuits: what held and what did not</title>
<style>
{style}li {{ margin: .35rem 0; max-width: 46rem; overflow-wrap: anywhere; }}</style></head><body>
<header><h1>What held and what did not</h1>
<p class="lead">The six arguments of “In-context Learning and Induction Heads”, and what the figures
of <a href="index.html">this report</a> say of each.</p>
<p>From {models}. An argument held if every figure drawn for it shows what the paper found, and its
controls show nothing of it: each figure's verdict says both.</p></header>
<nav><section class="summary"><table><thead><tr><th>The paper</th><th>Small attention-only models
</th><th>With MLPs</th><th>Large models</th></tr></thead>
<tbody>{rows}</tbody></table></section></nav>
<main>{sections}
<section class="figure"><h3>Figures beside the arguments</h3><ul>{rest}</ul></section>
<section class="figure"><h3>Out of scope</h3><p>{elsewhere}</p></section></main>
</body></html>
"""
