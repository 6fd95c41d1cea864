"""Framework paper: dumps of heads, positional heads (F13) and bugs (F14). The circuits are read as
in tables.py."""

import numpy as np
import xarray
from pandas import DataFrame, concat
from xarray import Dataset

from analyses import plots
from analyses.causal import Task, idealised
from analyses.heads import attention, skip_trigrams
from analyses.labelled import of_patterns
from analyses.papers.figures.framework.samples import windows
from analyses.papers.figures.framework.tables import (
    COST,
    READ,
    TOKENS,
    bug_costs,
    control,
    cost_panel,
    costs_in_words,
    visible,
)
from analyses.papers.figures.record import Finding, Picture, one_layer_figure
from analyses.plots import html_tables
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, every_head

NEAR = 0.05
"A word is spelled by a head if both its pieces are within this share of the vocabulary."
SEEDS = (1, 2, 3)
"Seeds of the untrained models beside the trained one, of which one alone may be lucky."
DUMP = "framework-head-dump.html"
POSITIONAL = "2 of 12 heads of the one-layer model are mainly positional"
WINDOWS = 32
"The number of held-out windows that positional heads are tested on."
KERNEL = (
    "The test of a positional head: its mean attention by distance in the place of its pattern "
    "recovers more than half of the loss that ablating it costs, on held-out windows, where that "
    "is more than three standard errors; some head passes it, and none at initialisation."
)


@one_layer_figure(
    "framework/head-dump",
    "Other skip-trigrams",
    "Framework, Skip-trigrams: others, and dumps of heads",
    "heads match brackets, indent, complete fixed phrases; of these brackets are told without a "
    "corpus",
)
def head_dump(model: GPT, rows: int = 20) -> Finding:
    """The list "other skip-trigrams" and the dumps of whole heads. They show the work of heads that
    do not copy. Of the paper's list, brackets can be told without a corpus: `(` asks for `)`."""
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
        f"{count} of {len(best)} raise the one that closes them among the first {near:.0f} tokens "
        f"in some head (tokens before it in the best head: {_listed(best)}; at initialisation "
        f"{lucky}: {_listed(luck)})",
        f"{caption} {READ}",
        lambda: plots.token_table(visible(others), widths),
        tables,
        lambda: {DUMP: _dump(read, closed)},
    )


@one_layer_figure(
    "framework/positions",
    "Positional heads",
    "Framework, Positional heads (F13)",
    POSITIONAL,
)
def positions(model: GPT) -> Finding:
    """Mean attention by distance back, per head. Some heads attend by position alone: a pattern of
    distances does what they do."""
    found, control = (positional_share(found) for found in (model, at_initialisation(model)))
    preference = attention.positional_preference(model)
    start = attention.positional_preference(at_initialisation(model))

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.6, 0.24 * preference.label.size + 1.2))
        titles = ("trained", "at initialisation")
        for ax, result, title in zip(axes[0], (preference, start), titles, strict=True):
            rows = result.stack(heads=("layer", "head")).transpose("heads", "offset")
            rows = rows.drop_vars(["heads", "layer", "head"])
            rows = rows.assign_coords(heads=result.label.values.ravel())
            plots.heatmap(rows, ax, title, bar=title != "trained")
            ax.set(xlabel="distance from destination back to source", ylabel="")
        return figure

    return Finding(
        *positional_verdict(found, control),
        "Mean attention of each head by distance back, on random tokens, where nothing but the "
        "position tells them apart. Distance 0 is the token itself, 1 the token before it. "
        f"{KERNEL}",
        picture,
    )


@one_layer_figure(
    "framework/positional-table",
    "What positional heads say",
    "Framework, Positional heads (F13, table)",
    POSITIONAL,
)
def positional_table(model: GPT) -> Finding:
    """The skip-bigrams of heads that attend to the token itself or to the one before it: how they
    use that token. The verdict is that of `framework/positions`.

    Heads are those over `attention.THRESHOLD` at one distance of 0 or 1, and only the nearest to it
    where there is none.
    """
    kernels, control = (positional_share(found) for found in (model, at_initialisation(model)))
    near = attention.positional_preference(model, reach=1)
    share = near.max("offset")
    names, shares = share.label.values.ravel(), share.values.ravel()
    looks = np.array(["itself", "token before"])[near.argmax("offset").values.ravel()]
    order = [i for i in np.argsort(-shares) if shares[i] > attention.THRESHOLD]
    read = skip_trigrams.through_first_norm(model)
    parts = []
    for i in order or [int(shares.argmax())]:
        part = skip_trigrams.positional_table(read, str(names[i]))
        parts.append(part.assign(head=str(names[i]), looks_at=looks[i], attention=float(shares[i])))
    found = concat(parts, ignore_index=True)
    ahead = ["head", "looks_at", "attention"]
    found = found.filter([*ahead, *(name for name in found if name not in ahead)])
    caption = (
        "For each head that looks at one place: the words there whose strongest out token stands "
        "out most (peak: standard deviations of all outs), and the tokens that they raise. "
        + ("" if order else "No head is over the threshold; the nearest is shown. ")
    )
    widths = {"head": 7, "looks_at": 14, "attention": 11, "source": 16, "outs": 56, "peak": 7}
    return Finding(
        *positional_verdict(kernels, control),
        f"{caption}Attention is measured on random tokens. {READ} {KERNEL}",
        lambda: plots.token_table(visible(found), widths),
        lambda: html_tables.fragment(html_tables.table(found, caption=caption, tokens=TOKENS[:1])),
    )


@one_layer_figure(
    "framework/bugs",
    "Skip-trigram bugs",
    "Framework, Skip-trigram bugs (F14)",
    'a head that raises right skip-trigrams of one source must raise wrong ones ("keep ... in '
    'bay")',
    layers=1,
)
def bugs(model: GPT, heads: int = 3) -> Finding:
    """Keep ... in mind and keep ... at bay force keep ... in bay.

    The criterion needs no corpus: a head's score is a number of the destination times one of the
    out, so where (a, c) and (b, d) are raised, (a, d) and (b, c) are. Split words say which are
    wrong: pieces that together make no word of the vocabulary.
    """
    read = skip_trigrams.through_first_norm(model)
    words = skip_trigrams.split_table(read)
    spelled = _spelled(words, model)
    luck = [len(_spelled(skip_trigrams.split_table(control(model, seed)), model)) for seed in SEEDS]
    if not len(words):
        raise ValueError("the vocabulary of the model has no split words")
    best = (spelled if len(spelled) else words).sort_values("score", ascending=False)
    best = best.drop_duplicates("head").head(heads)
    grids = [skip_trigrams.spelling_grid(read, row["head"], row["source"])
             for row in best.to_dict("records")]  # fmt: skip
    titles = [f"{plots.show_token(one.attrs['source'])} ...  at {one.attrs['head']}"
              for one in grids]  # fmt: skip
    forced = sum(int(grid.forced.sum()) for grid in grids)
    above = sum(int((grid.forced & (grid > grid[0, 0])).sum()) for grid in grids)
    costs = bug_costs(model)

    def picture() -> Picture:
        figure, axes = plots.grid(1, len(grids) + bool(costs), (5.3, 3.2))
        for ax, grid, title in zip(axes[0], grids, titles, strict=False):
            plots.spelling_grid(grid, ax, plots.literal(title))
        if costs:
            cost_panel(costs, axes[0, -1])
        return figure

    def tables() -> str:
        said = "QK score x OV effect. Framed: forced, and no word."
        return html_tables.fragment(*(
            html_tables.grid(grid, marked=grid.forced, caption=f"{title}: {said}")
            for grid, title in zip(grids, titles, strict=True)
        ))  # fmt: skip

    return Finding(
        len(spelled) > 1.5 * max(luck) and forced > 0,
        f"heads spell {len(spelled)} split words (both pieces among the first {NEAR:.0%} of "
        f"tokens; {len(words) * NEAR**2:.0f} by chance, {', '.join(map(str, luck))} in untrained "
        f"models), and in the grids of {len(grids)} of them {forced} cells that spell no word are "
        f"forced above 0, {above} of them over the source's own; {costs_in_words(costs)}",
        "For one source word: destinations (rows) and outs (columns) that are the pieces of split "
        "words, the source's own first. Framed: forced bugs. The score has rank one, so a row and "
        "a column that each hold a word above 0 (bold) are above 0 where they cross, and these "
        "cross at no word of the vocabulary (a rare word of English may be among them). That a "
        f"pair never occurs in text is not claimed: the corpus does not ship. {READ} {COST}",
        picture,
        tables,
    )


def positional_share(model: GPT) -> Dataset:
    """The `share` of the loss of each head's ablation that its mean attention by distance recovers,
    in the place of its pattern, and the `gap`, that loss in nats, with their errors, (component);
    see `idealised.recovery`."""
    tokens = windows(model, WINDOWS)
    own = of_patterns(model, tokens, lambda pattern: pattern)
    task = Task(model, tokens)
    found = [
        idealised.recovery(
            idealised.substitute(
                task, [str(at)], {"positional": idealised.positional(own[:, at.layer, at.head])}
            )
        )
        for at in every_head(model.cfg)
    ]
    return xarray.concat(found, "component").sel(pattern="positional")


def positional_verdict(found: Dataset, control: Dataset) -> tuple[bool, str]:
    """Whether some head is positional and none is at initialisation, and the numbers in words."""
    named, lucky = (_positional(one) for one in (found, control))
    said = ", ".join(
        f"{head.item()} {float(share):.0%} of {float(gap):.2f} nats" if share.notnull()
        else f"{head.item()} no clear gap ({float(gap):.2f} nats)"
        for head, share, gap in zip(found.component, found.share, found.gap, strict=True)
    )  # fmt: skip
    return bool(named) and not lucky, (
        f"{len(named)} of {found.sizes['component']} heads are mainly positional ("
        f"{', '.join(named) or 'none'}), {len(lucky)} at initialisation; mean attention by "
        f"distance recovers of {said}"
    )


def _positional(found: Dataset) -> list[str]:
    return [str(name) for name in found.component.values[(found.share > 0.5).values]]


def _dump(read: GPT, closed: DataFrame) -> str:
    """The page of all heads."""
    largest = html_tables.table(
        skip_trigrams.strongest(read, n=40),
        caption="The largest skip-trigrams of all heads, one for each head and source.",
        tokens=TOKENS,
    )
    brackets = html_tables.table(
        closed,
        caption="How far up each bracket raises the one that closes it.",
        tokens=["source", "out"],
    )
    heads = {
        str(at): html_tables.table(
            skip_trigrams.head_dump(read, at),
            caption=f"The strongest sources of {at}: where they are asked for, what they raise.",
            tokens=TOKENS[:1],
        )
        for at in every_head(read.cfg)
    }
    return html_tables.page("Dump of all heads", largest, brackets, note=READ, sections=heads)


def _spelled(words: DataFrame, model: GPT) -> DataFrame:
    within = f"< {NEAR * model.cfg.d_vocab}"
    return words.query(f"destination_rank {within} and out_rank {within} and score > 0")


def _best_ranks(closed: DataFrame) -> dict[str, int]:
    return {str(name): int(part.out_rank.min()) for name, part in closed.groupby("source")}


def _listed(ranks: dict[str, int]) -> str:
    return ", ".join(f"{name} {rank}" for name, rank in ranks.items())
