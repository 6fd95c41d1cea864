"""Framework paper, "Skip-trigrams": tables of skip-trigrams and of split words (F10, F11).

All read the circuits behind the first norm, as the paper does: exact for heads of layer 0,
positions and biases aside; heads of later layers are read as if they saw the embedding alone.
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
    "The last panel is no part of the verdict. A forced cell there is one that a head raises and "
    "half of the held-out text does not have, though that half has its row and its column with "
    "others. The cost is the loss of the other half less the loss without these cells, in the mean "
    "over all tokens; right cells, which the first half has, are measured alike."
)
TOKENS = ["source", "destination", "out"]
MEASURED = 12
"Of each half of the held-out windows, the number on which the cost of bugs is measured."
COPIES = 0.05
"A head copies if more than this share of tokens raise themselves most."
GAIN, SHARE, WORDS = 0.05, 0.6, 100
"The mean gain in nats, the share of words that gain, and the least number of words, of a model "
"that completes split words."


@one_layer_figure(
    "framework/skip-trigrams",
    "Copying skip-trigrams",
    "Framework, Skip-trigrams: copying (F10)",
    "most heads spend most of their capacity on copying, their strongest out token is the source",
)
def skip_trigrams_table(model: GPT) -> Finding:
    """Source, destination and out tokens of every head, one row a head, sources chosen by rule."""
    read = skip_trigrams.through_first_norm(model)
    table = skip_trigrams.copying_table(read)
    shares, start = (copying.own_top(found) for found in (read, control(model)))
    count, by_luck = (int((found > COPIES).sum()) for found in (shares, start))
    caption = (
        "A head that is at a destination token and has seen the source raises the out tokens. The "
        "source of each head is the word whose own logit stands out most (own score: standard "
        "deviations above the mean; own rank: tokens raised more)."
    )
    widths = {"head": 6, "source": 14, "destinations": 44, "outs": 44, "own_score": 10}
    return Finding(
        count > shares.size / 2 and not by_luck,
        f"{count} of {shares.size} heads raise the token itself most of all "
        f"{model.cfg.d_vocab:,} for more than {COPIES:.0%} of tokens ("
        + ", ".join(
            f"{name} {share:.1%}"
            for name, share in zip(shares.label.values.flat, shares.values.flat, strict=True)
        )
        + f"; at initialisation {by_luck} heads, at most {float(start.max()):.1%})",
        f"{caption} Each token's blue is its QK score or OV effect, full at the largest of the "
        f"column. The test is on all tokens: more than half of the heads raise the token itself "
        f"most for more than {COPIES:.0%} of tokens, and none does at initialisation. {READ}",
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
    """Words found by rule: those that are one token behind a space and several without it. A model
    that completes them expects the rest after the first piece more, if it has seen the whole word;
    the table shows heads that know which pieces belong to which word."""
    read, start = skip_trigrams.through_first_norm(model), at_initialisation(model)
    words = skip_trigrams.split_table(read)
    gain, luck = (skip_trigrams.completion(found).gain.to_numpy() for found in (model, start))
    (low, high), (least, most) = (ends(found) for found in (gain, luck))
    share = float((gain > 0).mean())
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
        contrast, by_luck = (
            skip_trigrams.split_contrast(found) for found in (read, control(model))
        )
        both = beside(contrast, by_luck).filter(["model", "head", "destination", "out", "score"])
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
        bool(gain.mean() > GAIN and low > 0 and share >= SHARE and least <= 0 <= most)
        if len(gain) >= WORDS
        else None,
        f"after its first piece the rest of a split word gains {gain.mean():+.3f} nats ({low:+.3f} "
        f"to {high:+.3f}) if the whole word is in the context and not another one, for {share:.0%} "
        f"of {len(gain)} words above 0 (at initialisation {luck.mean():+.3f}, {least:+.3f} to "
        f"{most:+.3f})",
        f"{caption} {READ} The test reads no weights: in BOS, word, new line, first piece, it "
        "compares the log-probability of the rest with that after other words in the word's place. "
        f"The mean gain is above {GAIN} nats with its interval above 0, and it is above 0 for "
        f"{SHARE:.0%} of at least {WORDS} words; at initialisation the interval holds 0.",
        lambda: plots.token_table(visible(best), widths),
        tables,
    )


def beside(trained: DataFrame, untrained: DataFrame) -> DataFrame:
    """One table of both, with a column that says which."""
    return concat([trained.assign(model="trained"), untrained.assign(model="untrained")])


def control(model: GPT, seed: int | None = None) -> GPT:
    """`at_initialisation`, read behind its first norm as the trained model is."""
    return skip_trigrams.through_first_norm(at_initialisation(model, seed))


def visible(frame: DataFrame) -> DataFrame:
    """A frame whose tokens show their whitespace, for a picture."""
    columns = [name for name in TOKENS if name in frame]
    return frame.assign(**{name: frame[name].map(plots.show_token) for name in columns})


def bug_costs(model: GPT) -> dict[str, DataArray]:
    """`skip_trigrams.both_ways` on the held-out windows, of the model as trained and as
    initialised; nothing for a model in which the cost is not defined."""
    if model.cfg.n_layers != 1 or not model.cfg.attn_only:
        return {}
    windows = passages.held_out(model, min(LENGTH, model.cfg.n_ctx))
    both = {"trained": model, "at initialisation": at_initialisation(model)}
    return {name: skip_trigrams.both_ways(one, windows, MEASURED) for name, one in both.items()}


def costs_in_words(costs: Mapping[str, DataArray]) -> str:
    """What forced cells add and right cells save, with the ends of the intervals."""
    said = [
        f"{name} forced cells add {_with_ends(found, 'forced', 1)} and right ones save "
        f"{_with_ends(found, 'right', -1)}"
        for name, found in costs.items()
    ]
    defined = f"in millinats per token, {'; '.join(said)}"
    return defined if said else "what bugs cost is defined in one layer without MLPs alone"


def _with_ends(found: DataArray, cells: str, sign: int) -> str:
    one = 1e3 * sign * found.sel(cells=cells)
    ends = sorted((1e3 * sign * float(found[end].sel(cells=cells))) for end in ("low", "high"))
    return f"{float(one.mean('window')):.2f} (95% {ends[0]:.2f} to {ends[1]:.2f})"


def cost_panel(costs: Mapping[str, DataArray], ax: Axes) -> None:
    """What the cells of each kind add to the loss, with 95% intervals."""
    for i, (name, found) in enumerate(costs.items()):
        mean = found.mean("window")
        ends = np.abs(np.stack([mean - found.low, found.high - mean]))
        at, colour = np.arange(mean.size) + 0.4 * i, (plots.TRAINED, plots.CONTROL)[i]
        ax.bar(at, 1e3 * mean, 0.4, yerr=1e3 * ends, color=colour, label=name, capsize=3)
    ax.axhline(0, color="0.3", lw=0.8)
    ax.set_xticks(np.arange(mean.size) + 0.2, [f"{kind} cells" for kind in mean.cells.values])
    ax.set(title="what cells add to the loss", ylabel="nats per 1,000 tokens")
    ax.legend(frameon=False, fontsize=8)
