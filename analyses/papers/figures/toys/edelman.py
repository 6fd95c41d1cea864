"""Edelman et al. 2024: from the uniform to the unigram to the bigram predictor, on Markov
chains."""

from xarray import DataArray

from analyses import plots
from analyses.labelled import to_numpy
from analyses.papers.figures.record import Finding, Picture, toy_figure
from analyses.papers.toys import edelman
from circuits.data import MarkovChains

CLOSES, STAYS = 0.4, 0.15
"Shares of the way from the unigram to the bigram predictor: a success has the first or more."
RUNS = {"minimal model": "#D55E00", "two layers": plots.TRAINED, "one layer": plots.CONTROL}
STRATEGIES = {"uniform": "#8C8C8C", "unigram": "#CC79A7", "bigram": "#009E73"}


@toy_figure(
    "induction/markov-chains",
    "Statistical induction, one strategy after another",
    "Edelman et al. 2024, The Evolution of Statistical Induction Heads",
    "first uniform, then a plateau at unigrams, then bigrams, by a layer that looks one back",
    url="https://arxiv.org/abs/2402.11004",
)
def markov_chains(seed: int = 0, *, steps: int = 400, n_ctx: int = 48) -> Finding:
    """Chains of three tokens. The claim: models pass the unigram predictor on their way to the
    bigram predictor, and the minimal model's vector of lags ends on lag 1. One layer stays with
    single tokens."""
    data = MarkovChains(3, length=n_ctx + 1, seed=10 * seed)
    minimal = edelman.Minimal(3, n_ctx)
    models = {"minimal model": minimal,
              "two layers": edelman.transformer(data, n_layers=2, seed=seed),
              "one layer": edelman.transformer(data, n_layers=1, seed=seed)}  # fmt: skip
    runs = {name: edelman.learn(model, data, steps) for name, model in models.items()}
    levels = edelman.strategy_divergences(data)
    lags = minimal.v.detach().softmax(-1)
    closed = {name: _closed(float(run.sel(what="truth")[-1]), levels) for name, run in runs.items()}
    near = {name: _plateau(run) for name, run in runs.items()}

    def picture() -> Picture:
        figure, axes = plots.grid(1, 3, (4.4, 3.4))
        left, middle, right = axes[0]
        for name, colour in RUNS.items():
            left.plot(runs[name].step, runs[name].sel(what="truth"), color=colour, label=name)
        at = left.get_yaxis_transform()
        for name, level in levels.items():
            colour = STRATEGIES[name]
            left.axhline(level, color=colour, ls="--", lw=0.9)
            left.text(1.01, level, name, fontsize=8, va="center", color=colour, transform=at)
        left.set(title="distance from the true chain")
        for name, colour in STRATEGIES.items():
            run = runs["minimal model"].sel(what=name)
            middle.plot(run.step, run, color=colour, label=name)
        middle.set(title="minimal model: which strategy")
        for ax in (left, middle):
            ax.set(xlabel="step", ylabel="KL (nats)", ylim=(0, None))
        shown = min(n_ctx, 16)
        right.bar(range(shown), to_numpy(lags[:shown]), color=RUNS["minimal model"])
        right.axhline(1 / n_ctx, color="0.3", ls="--", lw=0.8, label="before training")
        right.set(title="minimal model: softmax(v)", xlabel="lag", ylabel="weight", ylim=(0, 1),
                  xticks=range(0, shown, 2))  # fmt: skip
        for ax, place in ((left, "lower left"), (middle, "best"), (right, "best")):
            ax.legend(frameon=False, fontsize=8, loc=place)
        return figure

    return Finding(
        min(closed["minimal model"], closed["two layers"]) >= CLOSES
        and closed["one layer"] <= STAYS
        and min(near["minimal model"], near["two layers"]) > 0
        and int(lags.argmax()) == 1,
        f"of the way from the unigram to the bigram predictor, "
        f"{', '.join(f'{name} {share:+.2f}' for name, share in closed.items())} (wanted {CLOSES}; "
        f"one layer at most {STAYS}); steps during which the unigram predictor is the nearest of "
        f"the three: minimal model {near['minimal model']}, two layers {near['two layers']}, of "
        f"{steps}; the lag of the largest weight is {int(lags.argmax())} with "
        f"{float(lags.max()):.2f} (before training {1 / n_ctx:.2f} each)",
        "Left: KL divergence of each model from the true chain; dashed: the predictors that ignore "
        "the row (uniform), count its tokens (unigram), or count the tokens that followed the "
        "current token (bigram). Middle: KL divergence of the minimal model from each of these "
        "predictors. Right: the weights of the first lags in the minimal model. Every row is "
        f"{n_ctx} tokens of a Markov chain of its own. KL is over the later half of the positions, "
        "on rows that were not trained on. The second layer of the minimal model is linear, so it "
        "does not reach the bigram predictor. The test: the minimal model and two layers go at "
        f"least {CLOSES} of the way from the unigram to the bigram predictor, one layer at most "
        f"{STAYS}; for more than one record the unigram predictor is the nearest to both; and lag "
        "1 has the largest weight.",
        picture,
    )


def _closed(divergence: float, levels: dict[str, float]) -> float:
    """The place of a divergence from the truth between the unigram (0) and bigram (1)
    predictors."""
    return (levels["unigram"] - divergence) / (levels["unigram"] - levels["bigram"])


def _plateau(run: DataArray) -> int:
    """The number of steps from the first to the last record at which a model is nearer to the
    unigram predictor than to the two others."""
    names = list(STRATEGIES)
    nearest = run.sel(what=names).values.argmin(0)
    steps = run.step.values[nearest == names.index("unigram")]
    return int(steps[-1] - steps[0]) if len(steps) else 0
