"""Framework paper, "Skip-trigrams": the patterns that skip-trigrams follow (F12), and dumps of
whole heads. The circuits are read behind the first norm, as in tables.py."""

import numpy as np
from pandas import DataFrame, concat
from xarray import DataArray

from analyses import plots
from analyses.heads import skip_trigrams
from analyses.papers.figures.framework.tables import READ, TOKENS, beside, control, visible
from analyses.papers.figures.record import Finding, Picture, one_layer_figure, picture_of
from analyses.plots import html_tables
from circuits.model import GPT, every_head

N = 400
"The number of skip-trigrams of each head that are counted by pattern."
TOP, TIMES, SOURCES = 5, 10, 20
"A head spells if the rest of a word is among the TOP outs for TIMES as many sources as by chance, "
"and for SOURCES or more."
DUMP = "framework-head-dump.html"
INDEX, BLANKS = 50, 3
"The number of sources of each head on the page of all heads, and the most blanks among them."


@one_layer_figure(
    "framework/classes",
    "Patterns of skip-trigrams",
    "Framework, Skip-trigrams: abstract patterns (F12)",
    "skip-trigrams follow four patterns, copying in several forms, of split words too",
)
def classes(model: GPT) -> Finding:
    """The number of split words for which a head has the rest of the word among its largest outs.
    This is the pattern `[ab]...[a]->[b]`. A table counts all patterns among the largest
    skip-trigrams of each head, beside the counts at initialisation."""
    every, started = (_triples(found) for found in (skip_trigrams.through_first_norm(model),
                                                    control(model)))  # fmt: skip
    spelling, lucky = (_spelling(found) for found in (skip_trigrams.through_first_norm(model),
                                                      control(model)))  # fmt: skip
    words = len(skip_trigrams.split_tokens(model))
    bar = max(TIMES * TOP / model.cfg.d_vocab * words, float(SOURCES))
    trained, by_luck = _counts(every, model), _counts(started, model)
    named = list(skip_trigrams.PATTERNS[:-1])
    total, luck = ({name: int(np.sum(counts[name])) for name in named}
                   for counts in (trained, by_luck))  # fmt: skip
    counts = beside(trained, by_luck).filter(["model", "head", *skip_trigrams.PATTERNS])
    counts = counts.reset_index(drop=True)
    caption = (
        f"Not tested: the number of the {N:,} largest skip-trigrams of each head that follow each "
        "pattern. [b] is the source, [a] the destination; b' is similar to b: the same word but "
        "for case and space, or a token whose embedding has a cosine above 0.6 with b; [ab] "
        "is a source that a and b spell."
    )

    def tables() -> str:
        examples = every.query("pattern != 'other'").drop_duplicates(["pattern", "source"])
        examples = examples.groupby("pattern", sort=False).head(3)
        examples = examples.sort_values("pattern", kind="stable")
        examples = examples.filter(["pattern", "head", *TOKENS, "score"])
        largest = "The largest skip-trigrams of each pattern, one for each source."
        return html_tables.fragment(
            html_tables.table(counts, caption=caption, scales=dict.fromkeys(named, float(N))),
            html_tables.table(examples, caption=largest, tokens=TOKENS),
        )

    listed = (f"{name} {total[name]} (at initialisation {luck[name]})" for name in named)
    return Finding(
        max(spelling.values()) >= bar > max(lucky.values()),
        f"the rest of the word is among the {TOP} largest outs of a split word for "
        + ", ".join(f"{count} ({head})" for head, count in spelling.items())
        + f" of {words} words (chance {TOP / model.cfg.d_vocab * words:.1f}, wanted {bar:.0f}; "
        f"at initialisation at most {max(lucky.values())}). Among the {N:,} largest skip-trigrams "
        "of each head: " + ", ".join(listed),
        f"Bars: the number of split words (of {words}) whose second piece is among the {TOP} "
        "largest outs of the word, in each head. Dashed: chance. The table below counts all "
        f"patterns. The test: some head has {TIMES} times the number by chance, and {SOURCES} or "
        f"more (the dotted line), and no head does at initialisation. {READ}",
        lambda: _spelling_bars(spelling, lucky, TOP / model.cfg.d_vocab * words, bar),
        tables,
    )


def _spelling(read: GPT) -> dict[str, int]:
    """The number of split words whose second piece is among the TOP largest outs, for each head."""
    words = skip_trigrams.split_table(read)
    counts = (words.out_rank < TOP).groupby(words["head"], sort=False).sum()
    return {str(head): int(count) for head, count in counts.items()}


def _spelling_bars(
    spelling: dict[str, int], lucky: dict[str, int], chance: float, bar: float
) -> Picture:
    """The number of words that each head spells, trained and at initialisation. Dashed: chance.
    Dotted: the wanted number."""
    layers = len({head.split("H")[0] for head in spelling})
    trained, start = (
        DataArray(np.reshape(list(counts.values()), (layers, -1)), dims=("layer", "head"))
        for counts in (spelling, lucky)
    )
    words = "split words whose rest is among the largest outs"
    shown = trained.assign_attrs(chance=chance, long_name=words)
    ax = plots.bars(shown, control=start)
    ax.axhline(bar, color="0.3", ls=":", lw=1.2, label=f"wanted: {bar:.0f}")
    ax.set_ylim(0, 1.25 * max(bar, *spelling.values()))
    ax.legend(frameon=False, ncols=4, fontsize=8, loc="upper left")
    return picture_of(ax)


def _triples(model: GPT) -> DataFrame:
    """The N largest skip-trigrams of every head, largest first."""
    found = [skip_trigrams.triples(model, at, n=N).assign(head=str(at))
             for at in every_head(model.cfg)]  # fmt: skip
    return concat(found).sort_values("score", ascending=False, kind="stable")


def _counts(found: DataFrame, model: GPT) -> DataFrame:
    """The number of skip-trigrams of each pattern, one row for each head."""
    counts = found.groupby("head").pattern.value_counts().unstack(fill_value=0)
    heads = [str(at) for at in every_head(model.cfg)]
    counts = counts.reindex(index=heads, columns=list(skip_trigrams.PATTERNS), fill_value=0)
    return counts.rename_axis(index="head", columns=None).reset_index()


@one_layer_figure(
    "framework/head-dump",
    "Other skip-trigrams",
    "Framework, Skip-trigrams: others, and dumps of heads",
    "heads match brackets, indent, complete fixed phrases; of these brackets are told without a "
    "corpus",
)
def head_dump(model: GPT, rows: int = 20) -> Finding:
    """The list "other skip-trigrams" and the dumps of whole heads. They show skip-trigrams that do
    not copy. Brackets alone, of the paper's list, can be tested without a corpus: `(` asks for
    `)`."""
    read = skip_trigrams.through_first_norm(model)
    others = skip_trigrams.strongest(read, n=rows, pattern="other")
    closed, by_luck = (skip_trigrams.brackets(found) for found in (read, control(model)))
    best, luck = (_best_ranks(found) for found in (closed, by_luck))
    near = 0.005 * model.cfg.d_vocab
    count, lucky = (sum(rank < near for rank in found.values()) for found in (best, luck))
    caption = (
        "The largest skip-trigrams that copy nothing, of all heads, one for each head and source."
    )
    widths = {"head": 7, "source": 16, "destination": 16, "out": 16, "qk": 9, "ov": 9, "score": 9}

    def tables() -> str:
        listing = html_tables.table(others.drop(columns="pattern"), caption=caption, tokens=TOKENS)
        names = map(str, every_head(model.cfg))
        return html_tables.fragment(listing, page=DUMP, words="Every head", names=names)

    return Finding(
        2 * count > len(best) and count > 2 * lucky,
        f"some head has the closing bracket among its first {near:.0f} outs for {count} of "
        f"{len(best)} opening brackets (outs raised more in the best head: {_listed(best)}), at "
        f"initialisation for {lucky} ({_listed(luck)})",
        f"{caption} The test is about opening brackets: for more than half of them some head has "
        f"the closing bracket among its first {near:.0f} outs, and for more than twice as many as "
        f"at initialisation. {READ}",
        lambda: plots.token_table(visible(others), widths),
        tables,
        lambda: {DUMP: _dump(read, closed)},
    )


def _dump(read: GPT, closed: DataFrame) -> str:
    """The page of all heads."""
    largest = html_tables.table(
        skip_trigrams.strongest(read, n=40),
        caption="The largest skip-trigrams of all heads, one for each head and source.",
        tokens=TOKENS,
    )
    brackets = html_tables.table(
        closed,
        caption="The rank of the closing bracket among the outs of each opening bracket.",
        tokens=["source", "out"],
    )
    heads = {
        str(at): html_tables.table(
            skip_trigrams.head_dump(read, at, sources=min(INDEX, read.cfg.d_vocab), blanks=BLANKS),
            caption=f"The {INDEX} strongest sources of {at}, of which at most {BLANKS} are blank. "
            "For each source: the tokens that ask for it most (QK), and the tokens that it raises "
            "most (OV).",
            tokens=TOKENS[:1],
        )
        for at in every_head(read.cfg)
    }
    return html_tables.page("Dump of all heads", largest, brackets, note=READ, sections=heads)


def _best_ranks(closed: DataFrame) -> dict[str, int]:
    return {str(name): int(part.out_rank.min()) for name, part in closed.groupby("source")}


def _listed(ranks: dict[str, int]) -> str:
    return ", ".join(f"{name} {rank}" for name, rank in ranks.items())
