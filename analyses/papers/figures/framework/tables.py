"""Tables of "A Mathematical Framework for Transformer Circuits" (Elhage et al. 2021):
skip-trigrams, split words and their patterns. Dumps, positional heads and bugs: framework_dumps.py.

All read the circuits behind the first norm, as the paper does: exact for heads of layer 0,
positions and biases aside; heads of later layers are read as if they saw the embedding alone.
"""

import numpy as np
from pandas import DataFrame, concat

from analyses import plots
from analyses.heads import skip_trigrams
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict
from analyses.plots import html_tables
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, every_head

READ = (
    "Circuits are read behind the first norm, each row less its mean; heads of later layers are "
    "read as if they saw the embedding alone. ␣ is a space, ⏎ a new line."
)
N = 400
"Skip-trigrams of a head that are told by pattern."


def skip_trigrams_table(model: GPT) -> Drawing:
    """F10, "Copying / primitive in-context learning": source, destination and out tokens of every
    head, one row a head, sources chosen by rule."""
    table = skip_trigrams.copying_table(skip_trigrams.through_first_norm(model))
    start = skip_trigrams.copying_table(control(model))
    first, by_luck = (int((found.own_rank == 0).sum()) for found in (table, start))
    says = (
        f"paper: most heads copy, their strongest out token is the source; here {first} of "
        f"{len(table)} heads raise their source most of all {model.cfg.d_vocab:,} tokens, by "
        f"{np.median(table.own_score):.1f} standard deviations in the median of heads (at "
        f"initialisation, picked by the same rule: {by_luck} heads, "
        f"{np.median(start.own_score):.1f})"
    )
    caption = (
        "A head that is at a destination token and has seen the source raises the out tokens. The "
        "source of each head is the word whose own logit stands out most (own score: standard "
        "deviations above the mean; own rank: tokens raised more)."
    )
    stands_out = np.median(table.own_score) > 1.2 * np.median(start.own_score)
    return Drawing(
        plots.token_table(
            visible(table),
            {"head": 6, "source": 14, "destinations": 44, "outs": 44, "own_score": 10},
        ),
        "Copying skip-trigrams",
        f"Framework, Skip-trigrams: copying (F10), {FRAMEWORK}",
        f"{caption} Each token's blue is its QK score or OV effect, full at the largest of the "
        f"column. {READ}",
        Verdict(bool(first > len(table) / 2 and first > by_luck and stands_out), says),
        html=html_tables.fragment(html_tables.table(table, caption=caption, tokens=["source"])),
    )


def split_words(model: GPT, rows: int = 12) -> Drawing:
    """F11, "Copying words that are split": " Ralph" ... "R" -> "alph". Words found by rule: those
    that are one token behind a space and several without it.

    A head that knows spelling prefers a word's own pieces to those of all others, as query and as
    out; untrained heads prefer them half of the time.
    """
    read, start = skip_trigrams.through_first_norm(model), control(model)
    words = skip_trigrams.split_table(read)
    best = words.sort_values("score", ascending=False).drop_duplicates("source").head(rows)
    contrast, by_luck = (skip_trigrams.split_contrast(found) for found in (read, start))
    n = words.source.nunique()
    bar = 0.5 + 4 / np.sqrt(12 * n)
    knows, lucky = (_both_above(found, bar) for found in (contrast, by_luck))
    top, luck = (found.loc[found[["destination", "out"]].min(axis=1).idxmax()]
                 for found in (contrast, by_luck))  # fmt: skip
    says = (
        f'paper: heads complete split words (" Ralph" ... "R" -> "alph"); here {len(knows)} of '
        f"{len(contrast)} heads prefer the own pieces of {n} split words to those of other words "
        f"both as query and as out (over {bar:.3f}: chance is 0.5, four standard errors more); "
        f"nearest is {top['head']} with {top.destination:.3f} and {top.out:.3f} (at initialisation "
        f"{len(lucky)} heads, nearest {luck.destination:.3f} and {luck.out:.3f})"
    )
    caption = (
        f"The {rows} split words with the largest scores (QK score x OV effect) of all heads. "
        "Ranks count the tokens that stand before the piece: of all queries for the source, and of "
        "all outs that it raises."
    )
    both = concat([contrast.assign(model="trained"), by_luck.assign(model="untrained")])
    shown = best.reset_index(drop=True)
    return Drawing(
        plots.token_table(
            visible(shown),
            {"head": 7, "source": 15, "destination": 13, "out": 12, "qk": 8, "ov": 8, "score": 8,
             "destination_rank": 18, "out_rank": 10},
        ),
        "Words that the tokenizer splits",
        f"Framework, Skip-trigrams: tokens that are split (F11), {FRAMEWORK}",
        f"{caption} {READ}",
        Verdict(bool(knows and not lucky), says),
        html=html_tables.fragment(
            html_tables.table(shown, caption=caption, tokens=["source", "destination", "out"],
                         scales={name: float(np.max(shown[name]))
                                 for name in ("qk", "ov", "score")}),
            html_tables.table(both.filter(["model", "head", "destination", "out", "score"]),
                         caption="Of the "
                         "pieces of all split words, the mean share that a word's own stand above "
                         "as query, as out, and by the product of both; 0.5 by chance."),
        ),
    )  # fmt: skip


def classes(model: GPT) -> Drawing:
    """F12, the abstract patterns of skip-trigrams, `[b]...[a]->[b]` and its kin: how many of each
    head's largest skip-trigrams follow each, with an example, and as many at initialisation."""
    every, started = (_triples(found) for found in (skip_trigrams.through_first_norm(model),
                                                    control(model)))  # fmt: skip
    trained, by_luck = _counts(every, model), _counts(started, model)
    named = list(skip_trigrams.PATTERNS[:-1])
    total, luck = ({name: int(np.sum(counts[name])) for name in named}
                   for counts in (trained, by_luck))  # fmt: skip
    more = [name for name in named if total[name] > 3 * luck[name] + 3]
    says = (
        f"paper: heads copy in four patterns; here {len(more)} of them are clearly more frequent "
        f"than at initialisation ({', '.join(more) or 'none'}). Among the {N:,} largest "
        "skip-trigrams of each head: "
        + ", ".join(f"{name} {total[name]} (at initialisation {luck[name]})" for name in named)
    )
    both = concat([trained.assign(model="trained"), by_luck.assign(model="untrained")])
    counts = both.filter(["model", "head", *skip_trigrams.PATTERNS]).reset_index(drop=True)
    examples = every.query("pattern != 'other'").drop_duplicates(["pattern", "source"])
    examples = examples.groupby("pattern", sort=False).head(3).sort_values("pattern", kind="stable")
    examples = examples.filter(["pattern", "head", "source", "destination", "out", "score"])
    caption = (
        f"How many of the {N:,} largest skip-trigrams of each head follow each pattern. [b] is the "
        "source, [a] the destination; b' is similar to b: the same word but for case and space, or "
        "of an embedding within a cosine of 0.6; [ab] is a source that a and b spell."
    )
    widths = {"model": 18, "head": 7, **{name: len(name) + 3 for name in skip_trigrams.PATTERNS}}
    return Drawing(
        plots.token_table(counts, widths),
        "Patterns of skip-trigrams",
        f"Framework, Skip-trigrams: abstract patterns (F12), {FRAMEWORK}",
        f"{caption} {READ}",
        Verdict(len(more) == len(named), says),
        html=html_tables.fragment(
            html_tables.table(counts, caption=caption, scales=dict.fromkeys(named, float(N))),
            html_tables.table(examples, caption="The largest of each pattern, one a source.",
                         tokens=["source", "destination", "out"]),
        ),
    )  # fmt: skip


def _triples(model: GPT) -> DataFrame:
    """The N largest skip-trigrams of every head, largest first."""
    found = [skip_trigrams.triples(model, at, n=N).assign(head=str(at))
             for at in every_head(model.cfg)]  # fmt: skip
    return concat(found).sort_values("score", ascending=False, kind="stable")


def _counts(found: DataFrame, model: GPT) -> DataFrame:
    """How many of each pattern, a row a head."""
    counts = found.groupby("head").pattern.value_counts().unstack(fill_value=0)
    heads = [str(at) for at in every_head(model.cfg)]
    counts = counts.reindex(index=heads, columns=list(skip_trigrams.PATTERNS), fill_value=0)
    return counts.rename_axis(index="head", columns=None).reset_index()


def _both_above(contrast: DataFrame, bar: float) -> list[str]:
    return list(contrast["head"][(contrast.destination > bar) & (contrast.out > bar)])


def control(model: GPT, seed: int | None = None) -> GPT:
    """`at_initialisation`, read behind its first norm as the trained model is."""
    return skip_trigrams.through_first_norm(at_initialisation(model, seed))


def visible(frame: DataFrame) -> DataFrame:
    """A frame whose tokens show their whitespace, for a picture."""
    columns = [name for name in ("source", "destination", "out") if name in frame]
    return frame.assign(**{name: frame[name].map(plots.show_token) for name in columns})
