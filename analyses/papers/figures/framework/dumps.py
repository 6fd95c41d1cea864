"""Tables of "A Mathematical Framework for Transformer Circuits" (Elhage et al. 2021): dumps of
heads, positional heads, bugs. Circuits are read as in framework_tables.py."""

import numpy as np
from pandas import DataFrame, concat

from analyses import plots
from analyses.heads import attention, skip_trigrams
from analyses.papers.figures.drawing import FRAMEWORK, Drawing, Verdict
from analyses.papers.figures.framework.tables import READ, control, visible
from analyses.plots import html_tables
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, every_head

NEAR = 0.05
"A word is spelled by a head if both its pieces are within this share of the vocabulary."
SEEDS = (1, 2, 3)
"Of the untrained models beside the trained one, where one alone may be lucky."
DUMP = "framework-head-dump.html"


def head_dump(model: GPT, rows: int = 20) -> Drawing:
    """The list "other skip-trigrams" and the dumps of whole heads: what heads do besides copying.
    Of the paper's list, brackets can be told without a corpus: `(` asks for `)`."""
    read, start = skip_trigrams.through_first_norm(model), control(model)
    others = skip_trigrams.strongest(read, n=rows, pattern="other")
    largest = skip_trigrams.strongest(read, n=40)
    closed, by_luck = (skip_trigrams.brackets(found) for found in (read, start))
    best, luck = (_best_ranks(found) for found in (closed, by_luck))
    near = 0.005 * model.cfg.d_vocab
    count, lucky = (sum(rank < near for rank in found.values()) for found in (best, luck))
    says = (
        "paper: heads match brackets, indent, complete fixed phrases; of these brackets are told "
        f"without a corpus; here {count} of {len(best)} raise the one that closes them among the "
        f"first {near:.0f} tokens in some head (tokens before it in the best head: "
        f"{_listed(best)}; at initialisation {lucky}: {_listed(luck)})"
    )
    columns = ["source", "destination", "out"]
    sections = [
        html_tables.table(
            largest,
            caption="The largest skip-trigrams of all heads, one for each head and source.",
            tokens=columns,
        ),
        html_tables.table(
            closed,
            caption="How far up each bracket raises the one that closes it.",
            tokens=["source", "out"],
        ),
    ]
    for at in every_head(model.cfg):
        dump = skip_trigrams.head_dump(read, at)
        sections.append(f'<h2 id="{at}">{at}</h2>')
        words = f"The strongest sources of {at}: where they are asked for, what they raise."
        sections.append(html_tables.table(dump, caption=words, tokens=["source"]))
    caption = (
        "The largest skip-trigrams that copy nothing, of all heads, one for each head and source."
    )
    links = ", ".join(f'<a href="{DUMP}#{at}">{at}</a>' for at in every_head(model.cfg))
    listing = html_tables.table(others.drop(columns="pattern"), caption=caption, tokens=columns)
    return Drawing(
        plots.token_table(
            visible(others), {"head": 7, "source": 16, "destination": 16, "out": 16, "qk": 9,
                               "ov": 9, "score": 9},
        ),
        "Other skip-trigrams",
        f"Framework, Skip-trigrams: others, and dumps of heads, {FRAMEWORK}",
        f"{caption} {READ}",
        Verdict(2 * count > len(best) and count > 2 * lucky, says),
        html=html_tables.fragment(
            listing, f'<p><a href="{DUMP}">Every head</a>: {links}</p>'
        ),
        pages={DUMP: html_tables.page("Dump of all heads", f"<p>{READ}</p>", *sections)},
    )  # fmt: skip


def positional_table(model: GPT) -> Drawing:
    """F13, "Positional heads": what heads that attend to the token itself or to the one before it
    make of that token, as skip-bigrams; beside `framework/positions`.

    Heads are those over `attention.THRESHOLD` at one distance of 0 or 1, and only the nearest to it
    where there is none.
    """
    near, untrained = (attention.positional_preference(found, reach=1)
                   for found in (model, at_initialisation(model)))  # fmt: skip
    share, at_start = near.max("offset"), float(untrained.max())
    names = share.label.values.ravel()
    order = [
        i for i in np.argsort(-share.values.ravel()) if share.values.flat[i] > attention.THRESHOLD
    ]
    chosen = order or [int(share.values.argmax())]
    read = skip_trigrams.through_first_norm(model)
    parts = []
    for i in chosen:
        part = skip_trigrams.positional_table(read, str(names[i]))
        offset = int(near.values.reshape(-1, near.sizes["offset"])[i].argmax())
        part.insert(0, "attention", float(share.values.flat[i]))
        part.insert(0, "looks_at", ("itself", "token before")[offset])
        part.insert(0, "head", str(names[i]))
        parts.append(part)
    found = concat(parts, ignore_index=True)
    says = (
        f"paper: 2 of 12 heads of the one-layer model are mainly positional; here {len(order)} of "
        f"{len(names)} put over {attention.THRESHOLD:.0%} of their attention on the token "
        f"itself or the one before it (the most: {names[int(share.values.argmax())]} with "
        f"{float(share.max()):.2f}; at initialisation {at_start:.2f})"
    )
    caption = (
        "For each head that looks at one place: the words there whose strongest out token stands "
        "out most (peak: standard deviations of all outs), and the tokens that they raise. "
        + ("" if order else "No head is over the threshold; the nearest is shown. ")
    )
    return Drawing(
        plots.token_table(visible(found), {"head": 7, "looks_at": 14, "attention": 11, "source": 16,
                                  "outs": 56, "peak": 7}),
        "What positional heads say",
        f"Framework, Positional heads (F13, table), {FRAMEWORK}",
        f"{caption}Attention is measured on random tokens. {READ}",
        Verdict(bool(order) and at_start <= attention.THRESHOLD, says),
        html=html_tables.fragment(html_tables.table(found, caption=caption, tokens=["source"])),
    )  # fmt: skip


def bugs(model: GPT, heads: int = 3) -> Drawing:
    """F14, "Skip-trigram bugs": keep ... in mind and keep ... at bay force keep ... in bay.

    The criterion needs no corpus: a head's score is a number of the destination times one of the
    out, so where (a, c) and (b, d) are raised, (a, d) and (b, c) are. Split words say which are
    wrong: pieces that together make no word of the vocabulary.
    """
    read = skip_trigrams.through_first_norm(model)
    words = skip_trigrams.split_table(read)
    spelled = _spelled(words, model)
    luck = [len(_spelled(skip_trigrams.split_table(control(model, seed)), model)) for seed in SEEDS]
    if not len(words):
        raise ValueError("the model has no heads, or its vocabulary no split words")
    best = (spelled if len(spelled) else words).sort_values("score", ascending=False)
    best = best.drop_duplicates("head").head(heads)
    grids = [skip_trigrams.spelling_grid(read, row["head"], row["source"])
             for row in best.to_dict("records")]  # fmt: skip
    forced = sum(int(grid.forced.sum()) for grid in grids)
    above = sum(int((grid.forced & (grid > grid[0, 0])).sum()) for grid in grids)
    says = (
        'paper: a head that raises right skip-trigrams of one source must raise wrong ones ("keep '
        f'... in bay"); here heads spell {len(spelled)} split words (both pieces among the first '
        f"{NEAR:.0%} of tokens; {len(words) * NEAR**2:.0f} by chance, "
        f"{', '.join(map(str, luck))} in untrained models), and in the grids of {len(grids)} of "
        f"them {forced} cells that spell no word are forced above 0, {above} of them over the "
        "source's own"
    )
    caption = (
        "For one source word: destinations (rows) and outs (columns) that are the pieces of split "
        "words, the source's own first. Framed: forced bugs. The score has rank one, so a row and "
        "a column that each hold a word above 0 (bold) are above 0 where they cross, and these "
        "cross at no word of the vocabulary (a rare word of English may be among them). "
        "That a pair never occurs in text is not claimed: the "
        "corpus does not ship."
    )
    figure, axes = plots.grid(1, len(grids), (5.3, 3.2))
    fragments = []
    for ax, grid in zip(axes[0], grids, strict=True):
        title = f"{plots.show_token(grid.attrs['source'])} ...  at {grid.attrs['head']}"
        plots.spelling_grid(grid, ax, plots.literal(title))
        words = f"{title}: QK score x OV effect. Framed: forced, and no word."
        fragments.append(html_tables.grid(grid, marked=grid.forced, caption=words))
    return Drawing(
        figure,
        "Skip-trigram bugs",
        f"Framework, Skip-trigram bugs (F14), {FRAMEWORK}",
        f"{caption} {READ}",
        Verdict(len(spelled) > 1.5 * max(luck) and forced > 0, says),
        html=html_tables.fragment(*fragments),
    )


def _spelled(words: DataFrame, model: GPT) -> DataFrame:
    within = f"< {NEAR * model.cfg.d_vocab}"
    return words.query(f"destination_rank {within} and out_rank {within} and score > 0")


def _best_ranks(closed: DataFrame) -> dict[str, int]:
    return {str(name): int(part.out_rank.min()) for name, part in closed.groupby("source")}


def _listed(ranks: dict[str, int]) -> str:
    return ", ".join(f"{name} {rank}" for name, rank in ranks.items())
