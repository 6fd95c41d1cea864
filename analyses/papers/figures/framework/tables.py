"""Framework paper, "Skip-trigrams": tables of skip-trigrams and of split words (F10, F11).

The tables read the circuits behind the first norm, as the paper does. Without positions and biases
this is exact for heads of layer 0. Heads of later layers are read as if they saw the embedding
alone.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from pandas import DataFrame, concat
from xarray import DataArray

from analyses import plots
from analyses.heads import copying, skip_trigrams
from analyses.papers.figures.framework.samples import LENGTH, ends
from analyses.papers.figures.record import Finding, one_layer_figure
from analyses.plots import html_tables
from analyses.prompts import passages
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT

READ = (
    "Circuits are read behind the first norm, each row less its mean; heads of later layers are "
    "read as if they saw the embedding alone. ␣ is a space, ⏎ a new line."
)
COST = (
    "The last panel is no part of the verdict. There a right cell is a cell that a head raises and "
    "that one half of the held-out text has. A forced cell is a cell that a head raises and that "
    "this half does not have, although its row and its column each have a right cell. The cost is "
    "the loss on the other half less the loss there without these cells, in the mean over all "
    "tokens."
)
TOKENS = ["source", "destination", "out"]
MEASURED = 12
"The number of windows, in each half of the held-out text, on which the cost is measured."
COPIES = 0.05
"A head copies if more than this share of tokens raise themselves most."
GAIN, SHARE, WORDS = 0.05, 0.6, 100
"The least mean gain in nats, share of words that gain, and number of words that show completion."


@one_layer_figure(
    "framework/skip-trigrams",
    "Copying skip-trigrams",
    "Framework, Skip-trigrams: copying (F10)",
    "most heads spend most of their capacity on copying, their strongest out token is the source",
)
def skip_trigrams_table(model: GPT) -> Finding:
    """Source, destination and out tokens of every head: one row for each head, with a source that
    is chosen by rule."""
    read = skip_trigrams.through_first_norm(model)
    table = skip_trigrams.copying_table(read)
    shares, start = (copying.own_top(found) for found in (read, control(model)))
    count, by_luck = (int((found > COPIES).sum()) for found in (shares, start))
    caption = (
        "Each row is a head. From a destination token, with the source before it, the head raises "
        "the out tokens. The source of each head is the word whose own logit stands out most (own "
        "score: standard deviations above the mean; own rank: the number of tokens that it raises "
        "more)."
    )
    widths = {"head": 6, "source": 14, "destinations": 44, "outs": 44, "own_score": 10}
    return Finding(
        count > shares.size / 2 and not by_luck,
        f"{count} of {shares.size} heads raise the token itself most, out of "
        f"{model.cfg.d_vocab:,}, for more than {COPIES:.0%} of tokens ("
        + ", ".join(
            f"{name} {share:.1%}"
            for name, share in zip(shares.label.values.flat, shares.values.flat, strict=True)
        )
        + f"; at initialisation {by_luck} heads, at most {float(start.max()):.1%})",
        f"{caption} Blue shows the QK score or the OV effect of a token, and is full at the "
        f"largest value of the column. {READ} The test is on all tokens: more than half of the "
        f"heads raise the token itself most for more than {COPIES:.0%} of tokens, and no head does "
        "at initialisation.",
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
    """Split words, found by rule: words that are one token after a space and several tokens without
    the space. A model that completes such words gives the rest a higher probability after the first
    piece if it has seen the whole word. The table shows heads that join pieces to their word."""
    read, start = skip_trigrams.through_first_norm(model), at_initialisation(model)
    words = skip_trigrams.split_table(read)
    gain, luck = (skip_trigrams.completion(found).gain.to_numpy() for found in (model, start))
    (low, high), (least, most) = (ends(found) for found in (gain, luck))
    share = float((gain > 0).mean())
    best = words.sort_values("score", ascending=False).drop_duplicates("source").head(rows)
    best = best.reset_index(drop=True)
    caption = (
        f"The {rows} split words with the largest scores (QK score x OV effect) of all heads. A "
        "rank is the number of tokens before the piece, among all queries for the source and among "
        "all outs of the source."
    )
    widths = {"head": 7, "source": 15, "destination": 13, "out": 12, "qk": 8, "ov": 8, "score": 8,
              "destination_rank": 18, "out_rank": 10}  # fmt: skip

    def tables() -> str:
        contrast, by_luck = (
            skip_trigrams.split_contrast(found) for found in (read, control(model))
        )
        both = beside(contrast, by_luck).filter(["model", "head", "destination", "out", "score"])
        scales = {name: float(np.max(best[name])) for name in ("qk", "ov", "score")}
        return html_tables.fragment(
            html_tables.table(best, caption=caption, tokens=TOKENS, scales=scales),
            html_tables.table(
                both,
                caption="The mean share of the pieces of all split words that score below the "
                "word's own piece: as query, as out, and by the product of both; 0.5 by chance.",
            ),
        )

    return Finding(
        bool(gain.mean() > GAIN and low > 0 and share >= SHARE and least <= 0 <= most)
        if len(gain) >= WORDS
        else None,
        f"after its first piece the rest of a split word gains {gain.mean():+.3f} nats ({low:+.3f} "
        f"to {high:+.3f}) if the whole word is in the context instead of another word; the gain is "
        f"above 0 for {share:.0%} of {len(gain)} words (at initialisation the mean is "
        f"{luck.mean():+.3f}, {least:+.3f} to {most:+.3f})",
        f"{caption} {READ} The test reads no weights. On the text BOS, word, new line, first "
        "piece, the gain is the log-probability of the rest of the word, less its log-probability "
        f"with other words in the place of the word. The test: the mean gain is above {GAIN} nats "
        f"with its interval above 0; the gain is above 0 for at least {SHARE:.0%} of at least "
        f"{WORDS} words; and at initialisation the interval contains 0.",
        lambda: plots.token_table(visible(best), widths),
        tables,
    )


def beside(trained: DataFrame, untrained: DataFrame) -> DataFrame:
    """One table of both models, with a column that names the model."""
    return concat([trained.assign(model="trained"), untrained.assign(model="untrained")])


def control(model: GPT, seed: int | None = None) -> GPT:
    """The model `at_initialisation`, read behind its first norm as the trained model is."""
    return skip_trigrams.through_first_norm(at_initialisation(model, seed))


def visible(frame: DataFrame) -> DataFrame:
    """A frame whose tokens show their whitespace, for a picture."""
    columns = [name for name in TOKENS if name in frame]
    return frame.assign(**{name: frame[name].map(plots.show_token) for name in columns})


def bug_costs(model: GPT) -> dict[str, DataArray]:
    """`skip_trigrams.both_ways` on the held-out windows, for the model and for the model at
    initialisation. Empty for a model in which the cost is not defined."""
    if model.cfg.n_layers != 1 or not model.cfg.attn_only:
        return {}
    windows = passages.held_out(model, min(LENGTH, model.cfg.n_ctx))
    both = {"trained": model, "at initialisation": at_initialisation(model)}
    return {name: skip_trigrams.both_ways(one, windows, MEASURED) for name, one in both.items()}


def costs_in_words(costs: Mapping[str, DataArray]) -> str:
    """The change of the loss by forced and by right cells, with the ends of the intervals."""
    said = [
        f"{name} by {_with_ends(found, 'forced')} through forced cells and by "
        f"{_with_ends(found, 'right')} through right cells"
        for name, found in costs.items()
    ]
    changes = f"the loss changes, in nats a token, {'; '.join(said)}"
    return changes if said else "the cost of bugs is defined only for one layer without MLPs"


def _with_ends(found: DataArray, cells: str) -> str:
    one = found.sel(cells=cells)
    return f"{float(one.mean('window')):+.3f} ({float(one.low):+.3f} to {float(one.high):+.3f})"


def cost_panel(costs: Mapping[str, DataArray], ax: Axes) -> None:
    """Draw the loss that the cells of each kind add, with 95% intervals."""
    for i, (name, found) in enumerate(costs.items()):
        mean = found.mean("window")
        ends = np.abs(np.stack([mean - found.low, found.high - mean]))
        at, colour = np.arange(mean.size) + 0.4 * i, (plots.TRAINED, plots.CONTROL)[i]
        ax.bar(at, 1e3 * mean, 0.4, yerr=1e3 * ends, color=colour, label=name, capsize=3)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set_xticks(np.arange(mean.size) + 0.2, [f"{kind} cells" for kind in mean.cells.values])
    ax.set(title="loss that cells add", ylabel="nats per 1,000 tokens")
    ax.legend(frameon=False, fontsize=8)
