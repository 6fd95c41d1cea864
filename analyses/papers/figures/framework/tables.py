"""Framework paper, "Skip-trigrams": tables of skip-trigrams, split words and patterns (F10 to F12).

All read the circuits behind the first norm, as the paper does: exact for heads of layer 0,
positions and biases aside; heads of later layers are read as if they saw the embedding alone.
"""

import numpy as np
from pandas import DataFrame, concat

from analyses import plots
from analyses.heads import skip_trigrams
from analyses.papers.figures.record import Finding, one_layer_figure
from analyses.plots import html_tables
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, every_head

READ = (
    "Circuits are read behind the first norm, each row less its mean; heads of later layers are "
    "read as if they saw the embedding alone. ␣ is a space, ⏎ a new line."
)
TOKENS = ["source", "destination", "out"]
N = 400
"The number of skip-trigrams of each head that are counted by pattern."


@one_layer_figure(
    "framework/skip-trigrams",
    "Copying skip-trigrams",
    "Framework, Skip-trigrams: copying (F10)",
    "most heads copy, their strongest out token is the source",
)
def skip_trigrams_table(model: GPT) -> Finding:
    """Source, destination and out tokens of every head, one row a head, sources chosen by rule."""
    table = skip_trigrams.copying_table(skip_trigrams.through_first_norm(model))
    start = skip_trigrams.copying_table(control(model))
    first, by_luck = (int((found.own_rank == 0).sum()) for found in (table, start))
    median, lucky = (np.median(found.own_score) for found in (table, start))
    caption = (
        "A head that is at a destination token and has seen the source raises the out tokens. The "
        "source of each head is the word whose own logit stands out most (own score: standard "
        "deviations above the mean; own rank: tokens raised more)."
    )
    widths = {"head": 6, "source": 14, "destinations": 44, "outs": 44, "own_score": 10}
    return Finding(
        bool(first > len(table) / 2 and first > by_luck and median > 1.2 * lucky),
        f"{first} of {len(table)} heads raise their source most of all {model.cfg.d_vocab:,} "
        f"tokens, by {median:.1f} standard deviations in the median of heads (at initialisation, "
        f"picked by the same rule: {by_luck} heads, {lucky:.1f})",
        f"{caption} Each token's blue is its QK score or OV effect, full at the largest of the "
        f"column. {READ}",
        lambda: plots.token_table(visible(table), widths),
        lambda: html_tables.fragment(html_tables.table(table, caption=caption, tokens=TOKENS[:1])),
    )


@one_layer_figure(
    "framework/split-words",
    "Words that the tokenizer splits",
    "Framework, Skip-trigrams: tokens that are split (F11)",
    'heads complete split words (" Ralph" ... "R" -> "alph")',
)
def split_words(model: GPT, rows: int = 12) -> Finding:
    """Words found by rule: those that are one token behind a space and several without it.

    A head that knows spelling prefers the pieces of a word to those of all others, as query and as
    out; untrained heads prefer them half of the time.
    """
    read, start = skip_trigrams.through_first_norm(model), control(model)
    words = skip_trigrams.split_table(read)
    contrast, by_luck = (skip_trigrams.split_contrast(found) for found in (read, start))
    n = words.source.nunique()
    bar = 0.5 + 4 / np.sqrt(12 * n)
    knows, lucky = (_both_above(found, bar) for found in (contrast, by_luck))
    top, luck = (found.loc[found[["destination", "out"]].min(axis=1).idxmax()]
                 for found in (contrast, by_luck))  # fmt: skip
    best = words.sort_values("score", ascending=False).drop_duplicates("source").head(rows)
    best = best.reset_index(drop=True)
    caption = (
        f"The {rows} split words with the largest scores (QK score x OV effect) of all heads. "
        "Ranks count the tokens that stand before the piece: of all queries for the source, and of "
        "all outs that it raises."
    )
    widths = {"head": 7, "source": 15, "destination": 13, "out": 12, "qk": 8, "ov": 8, "score": 8,
              "destination_rank": 18, "out_rank": 10}  # fmt: skip

    def tables() -> str:
        both = _beside(contrast, by_luck).filter(["model", "head", "destination", "out", "score"])
        scales = {name: float(np.max(best[name])) for name in ("qk", "ov", "score")}
        return html_tables.fragment(
            html_tables.table(best, caption=caption, tokens=TOKENS, scales=scales),
            html_tables.table(
                both,
                caption="Of the pieces of all split words, the mean share that a word's own stand "
                "above as query, as out, and by the product of both; 0.5 by chance.",
            ),
        )

    return Finding(
        bool(knows and not lucky),
        f"{len(knows)} of {len(contrast)} heads prefer the own pieces of {n} split words to those "
        f"of other words both as query and as out (over {bar:.3f}: chance is 0.5, four standard "
        f"errors more); nearest is {top['head']} with {top.destination:.3f} and {top.out:.3f} (at "
        f"initialisation {len(lucky)} heads, nearest {luck.destination:.3f} and {luck.out:.3f})",
        f"{caption} {READ}",
        lambda: plots.token_table(visible(best), widths),
        tables,
    )


@one_layer_figure(
    "framework/classes",
    "Patterns of skip-trigrams",
    "Framework, Skip-trigrams: abstract patterns (F12)",
    "heads copy in four patterns",
)
def classes(model: GPT) -> Finding:
    """The abstract patterns of skip-trigrams, `[b]...[a]->[b]` and its kin: how many of the largest
    skip-trigrams of each head follow each pattern, with an example; beside them, the numbers at
    initialisation."""
    every, started = (_triples(found) for found in (skip_trigrams.through_first_norm(model),
                                                    control(model)))  # fmt: skip
    trained, by_luck = _counts(every, model), _counts(started, model)
    named = list(skip_trigrams.PATTERNS[:-1])
    total, luck = ({name: int(np.sum(counts[name])) for name in named}
                   for counts in (trained, by_luck))  # fmt: skip
    more = [name for name in named if total[name] > 3 * luck[name] + 3]
    counts = _beside(trained, by_luck).filter(["model", "head", *skip_trigrams.PATTERNS])
    counts = counts.reset_index(drop=True)
    caption = (
        f"How many of the {N:,} largest skip-trigrams of each head follow each pattern. [b] is the "
        "source, [a] the destination; b' is similar to b: the same word but for case and space, or "
        "of an embedding within a cosine of 0.6; [ab] is a source that a and b spell."
    )
    widths = {"model": 18, "head": 7, **{name: len(name) + 3 for name in skip_trigrams.PATTERNS}}

    def tables() -> str:
        examples = every.query("pattern != 'other'").drop_duplicates(["pattern", "source"])
        examples = examples.groupby("pattern", sort=False).head(3)
        examples = examples.sort_values("pattern", kind="stable")
        examples = examples.filter(["pattern", "head", *TOKENS, "score"])
        largest = "The largest of each pattern, one a source."
        return html_tables.fragment(
            html_tables.table(counts, caption=caption, scales=dict.fromkeys(named, float(N))),
            html_tables.table(examples, caption=largest, tokens=TOKENS),
        )

    listed = (f"{name} {total[name]} (at initialisation {luck[name]})" for name in named)
    return Finding(
        len(more) == len(named),
        f"{len(more)} of them are clearly more frequent than at initialisation "
        f"({', '.join(more) or 'none'}). Among the {N:,} largest skip-trigrams of each head: "
        + ", ".join(listed),
        f"{caption} {READ}",
        lambda: plots.token_table(counts, widths),
        tables,
    )


def _triples(model: GPT) -> DataFrame:
    """The N largest skip-trigrams of every head, largest first."""
    found = [skip_trigrams.triples(model, at, n=N).assign(head=str(at))
             for at in every_head(model.cfg)]  # fmt: skip
    return concat(found).sort_values("score", ascending=False, kind="stable")


def _counts(found: DataFrame, model: GPT) -> DataFrame:
    """The number of skip-trigrams of each pattern, a row a head."""
    counts = found.groupby("head").pattern.value_counts().unstack(fill_value=0)
    heads = [str(at) for at in every_head(model.cfg)]
    counts = counts.reindex(index=heads, columns=list(skip_trigrams.PATTERNS), fill_value=0)
    return counts.rename_axis(index="head", columns=None).reset_index()


def _both_above(contrast: DataFrame, bar: float) -> list[str]:
    return list(contrast["head"][(contrast.destination > bar) & (contrast.out > bar)])


def _beside(trained: DataFrame, untrained: DataFrame) -> DataFrame:
    """One table of both, with a column that says which."""
    return concat([trained.assign(model="trained"), untrained.assign(model="untrained")])


def control(model: GPT, seed: int | None = None) -> GPT:
    """`at_initialisation`, read behind its first norm as the trained model is."""
    return skip_trigrams.through_first_norm(at_initialisation(model, seed))


def visible(frame: DataFrame) -> DataFrame:
    """A frame whose tokens show their whitespace, for a picture."""
    columns = [name for name in TOKENS if name in frame]
    return frame.assign(**{name: frame[name].map(plots.show_token) for name in columns})
