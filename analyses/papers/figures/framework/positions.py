"""Framework paper: positional heads (F13) and bugs (F14). Circuits are read behind the first
norm."""

import numpy as np
import xarray
from jaxtyping import Float
from pandas import DataFrame, concat
from xarray import Dataset

from analyses import plots, prompts
from analyses.causal import Task, idealised
from analyses.heads import attention, patterns, skip_trigrams
from analyses.labelled import of_patterns, to_numpy
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
from analyses.papers.figures.record import Finding, Picture, one_layer_figure, picture_of
from analyses.papers.figures.runs import LeftOut
from analyses.plots import html_tables
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, every_head

NEAR = 0.05
"A head spells a word if the ranks of both pieces are within this share of the vocabulary."
SEEDS = (1, 2, 3)
"The seeds of the untrained models beside the trained model. One of them alone may be lucky."
POSITIONAL = "2 of 12 heads of the one-layer model are mainly positional"
SHOWN = 40
"The number of positions of a map of attention."
WINDOWS = 32
"The number of held-out windows on which positional heads are tested."
KERNEL = (
    "The test: some head is positional, and no head is at initialisation. A head is positional if, "
    "on held-out windows, its mean attention by distance in the place of its pattern recovers more "
    "than half of the loss that its ablation costs; this loss must be more than three standard "
    "errors."
)


@one_layer_figure(
    "framework/positions",
    "Positional heads",
    "Framework, Positional heads (F13)",
    POSITIONAL,
)
def positions(model: GPT) -> Finding:
    """The mean attention of each head by distance back. For a head that attends by position alone a
    pattern of distances is as good as its own pattern."""
    found, control = (positional_share(found) for found in (model, at_initialisation(model)))
    preference = attention.positional_preference(model)
    start = attention.positional_preference(at_initialisation(model))

    bounds = 0.0, float(max(preference.max(), start.max()))

    def picture() -> Picture:
        figure, axes = plots.grid(1, 2, (4.6, 0.24 * preference.label.size + 1.2))
        titles = ("trained", "at initialisation")
        for ax, result, title in zip(axes[0], (preference, start), titles, strict=True):
            rows = result.stack(heads=("layer", "head")).transpose("heads", "offset")
            rows = rows.drop_vars(["heads", "layer", "head"])
            rows = rows.assign_coords(heads=result.label.values.ravel()).assign_attrs(bounds=bounds)
            plots.heatmap(rows, ax, title, bar=title != "trained")
            ax.set(xlabel="distance from destination back to source", ylabel="")
        return figure

    return Finding(
        *positional_verdict(found, control),
        "Each row is a head: its mean attention by distance back, on random tokens, where only "
        "positions differ. Distance 0 is the token itself, 1 is the token before it. "
        f"{KERNEL}",
        picture,
    )


@one_layer_figure(
    "framework/positional-qk",
    "Attention by positions alone",
    "Framework, Positional heads (beside F13)",
    "the positional embeddings and the QK circuit of a head say which positions it attends to",
    layers=1,
    illustration=True,
)
def positional_qk(model: GPT) -> Finding:
    """The attention that the positions alone would give, softmax of W_pos W_QK W_pos^T, below the
    mean attention on random tokens. If both are alike, positions decide where the head attends.

    LeftOut for a model without positional embeddings.
    """
    n = min(SHOWN, model.cfg.n_ctx)
    try:
        alone = patterns.from_positions(model, n).values
    except ValueError as error:
        raise LeftOut(str(error)) from error
    tokens = prompts.random_tokens(model, n - 1, batch=32)
    seen = to_numpy(of_patterns(model, tokens, lambda pattern: pattern)[:, 0].mean(0))
    seen, alone, even = (_without_first(one) for one in (seen, alone, np.tril(np.ones((1, n, n)))))
    names = [f"L0H{head}" for head in range(len(alone))]
    common = (np.minimum(seen, other).sum(-1).mean(-1) for other in (alone, even))
    listed = ", ".join(f"{name} {share:.0%} ({by_chance:.0%})"
                       for name, share, by_chance in zip(names, *common, strict=True))  # fmt: skip

    def picture() -> Picture:
        titles = [f"{name}, {words}" for words in ("measured", "by positions") for name in names]
        axes = plots.attention(np.concatenate([seen, alone]), titles=titles, columns=len(names))
        return picture_of(axes[0, 0])

    return Finding(
        None,
        "the share of the measured attention that positions alone would give too, and in brackets "
        f"the share that even attention would give: {listed}",
        f"Above: the mean attention of the heads of layer 0 on random tokens, for the first {n} "
        "positions. Below: the softmax of the scores between the embeddings of two positions, "
        "W_pos W_QK W_pos^T. Tokens and biases are left out; only the size of the mean token "
        "counts, for the first norm divides by it. Attention to the first token, which is BOS, is "
        "left out above and below, and each row is scaled to 1. The mean over random tokens hides "
        "the preferences of single tokens. So this figure has no test; the figure before tests "
        "whether a head attends by position alone.",
        picture,
    )


def _without_first(pattern: Float[np.ndarray, "head n n"]) -> Float[np.ndarray, "head dest src"]:
    """A pattern without its first position, each row scaled to 1."""
    rest = pattern[:, 1:, 1:]
    return rest / rest.sum(-1, keepdims=True).clip(min=1e-12)


@one_layer_figure(
    "framework/positional-table",
    "The tokens that positional heads raise",
    "Framework, Positional heads (F13, table)",
    POSITIONAL,
    illustration=True,
)
def positional_table(model: GPT) -> Finding:
    """The skip-bigrams of heads that attend to the token itself or to the token before it: how they
    use that token. `framework/positions` tests which heads are positional.

    Shown are the heads whose attention is over `attention.THRESHOLD` at distance 0 or 1. If there
    is no such head, the head with the most attention at one of the two distances is shown.
    """
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
        "For each head that attends to one distance: the words there whose strongest out stands "
        "out most (peak: standard deviations of all outs), and the tokens that these words raise. "
        + ("" if order else "No head is over the threshold; the nearest head is shown. ")
    )
    widths = {"head": 7, "looks_at": 14, "attention": 11, "source": 16, "outs": 56, "peak": 7}
    return Finding(
        None,
        f"{len(order)} of {len(names)} heads attend to one of the two distances by more than "
        f"{attention.THRESHOLD}; the most is {shares.max():.2f}, of {names[shares.argmax()]}",
        f"{caption}Attention is measured on random tokens. {READ}",
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

    The criterion needs no corpus. For one source a head's score is a number of the destination
    times a number of the out. So if (a, c) and (b, d) are raised, (a, d) and (b, c) are raised too.
    Split words show the wrong ones: two pieces that together make no word of the vocabulary.
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
        said = "QK score x OV effect. Framed: a forced cell that spells no word."
        return html_tables.fragment(*(
            html_tables.grid(grid, marked=grid.forced, caption=f"{title}: {said}")
            for grid, title in zip(grids, titles, strict=True)
        ))  # fmt: skip

    return Finding(
        len(spelled) > 1.5 * max(luck) and forced > 0,
        f"heads spell {len(spelled)} split words (both pieces among the first {NEAR:.0%} of "
        f"tokens; {len(words) * NEAR**2:.0f} by chance, {', '.join(map(str, luck))} in untrained "
        f"models); in the grids of {len(grids)} of them {forced} cells that spell no word are "
        f"forced above 0, and {above} of these are above the cell of the source's own pieces; "
        f"{costs_in_words(costs)}",
        "Each grid is one source word at one head: destinations (rows) and outs (columns) are the "
        "pieces of split words, the source's own pieces first. Bold: the pieces spell a word. "
        "Framed: forced bugs. The score has rank one. So if a row and a column each have a word "
        "above 0, the cell where they cross is above 0; it is a bug if its pieces spell no word of "
        "the vocabulary (they may spell a rare English word). The figure does not claim that a "
        "pair never occurs in text, for the corpus does not ship. The test: heads spell more than "
        f"1.5 times as many split words as in the luckiest of {len(SEEDS)} untrained models, and a "
        f"cell of the grids is a forced bug. {READ} {COST if costs else ''}".rstrip(),
        picture,
        tables,
    )


def positional_share(model: GPT) -> Dataset:
    """The `share` of the loss of each head's ablation that its mean attention by distance recovers
    in the place of its pattern, and the `gap`, which is this loss in nats, with their errors,
    (component); see `idealised.recovery`."""
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
        f"{', '.join(named) or 'none'}), {len(lucky)} at initialisation; the share of the loss of "
        f"ablation that mean attention by distance recovers: {said}"
    )


def _positional(found: Dataset) -> list[str]:
    return [str(name) for name in found.component.values[(found.share > 0.5).values]]


def _spelled(words: DataFrame, model: GPT) -> DataFrame:
    within = f"< {NEAR * model.cfg.d_vocab}"
    return words.query(f"destination_rank {within} and out_rank {within} and score > 0")
