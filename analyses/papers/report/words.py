"""Words of the report's pages: counts, marks, names of models, and a verdict's two halves."""

from collections.abc import Sequence
from html import escape

from analyses.papers.report.entries import Entry

NUMBERS = ["none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
NUMBERS += ["eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"]
NUMBERS += ["eighteen", "nineteen", "twenty"]


def paper_and_here(says: str) -> tuple[str, str]:
    """A verdict's words in two: what the paper found, and what was found here."""
    paper, found, here = says.partition("; here")
    if not found:
        return "", says
    return paper.removeprefix("paper:").strip(), here.lstrip(" ,:")


def number(n: int) -> str:
    """A count in words up to twenty, in digits beyond."""
    return NUMBERS[n] if n < len(NUMBERS) else str(n)


def models_in_html(names: Sequence[str]) -> str:
    """Names of models, each once; words for a figure that trains its own."""
    named = ", ".join(f"<code>{escape(name)}</code>" for name in dict.fromkeys(names))
    return named or "a model of its own"


def mark(entry: Entry) -> str:
    """A verdict as a sign and a word, in HTML."""
    if entry.left_out:
        return '<b class="mark">– left out</b>'
    if entry.verdict is None:
        return '<b class="mark failed">! failed</b>'
    if entry.verdict.holds:
        return '<b class="mark holds">✓ holds</b>'
    return '<b class="mark not">✗ does not hold</b>'


def sentence_case(words: str) -> str:
    """The words, beginning with a capital."""
    return words[:1].upper() + words[1:]
