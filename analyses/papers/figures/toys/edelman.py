"""Edelman et al. 2024: from uniform to unigram to bigram, on Markov chains in context."""

from xarray import DataArray

from analyses import plots
from analyses.labelled import to_numpy
from analyses.papers.figures.drawing import Drawing, Verdict
from analyses.papers.toys import edelman
from circuits.data import MarkovChains

URL = "https://arxiv.org/abs/2402.11004"
CLOSES, STAYS = 0.4, 0.15
"Share of the way from the unigram to the bigram predictor: what a success closes, a failure not."
RUNS = {"minimal model": "#D55E00", "two layers": plots.TRAINED, "one layer": plots.CONTROL}
STRATEGIES = {"uniform": "#8C8C8C", "unigram": "#CC79A7", "bigram": "#009E73"}


def markov_chains(seed: int = 0, *, steps: int = 400, n_ctx: int = 48) -> Drawing:
    """Chains of three tokens: models pass the unigram predictor on their way to the bigram one,
    and the minimal model's vector of lags ends on lag 1. One layer stays with single tokens."""
    data = MarkovChains(3, length=n_ctx + 1, seed=10 * seed)
    minimal = edelman.Minimal(3, n_ctx)
    runs = {"minimal model": edelman.learn_minimal(minimal, data, steps)}
    for name, n_layers in (("two layers", 2), ("one layer", 1)):
        model = edelman.transformer(data, n_layers=n_layers, seed=seed)
        runs[name] = edelman.learn(model, data, steps)
    levels = edelman.strategy_divergences(data)
    lags = minimal.v.detach().softmax(-1)
    figure, axes = plots.grid(1, 3, (4.4, 3.4))
    ax = axes[0, 0]
    for name, colour in RUNS.items():
        ax.plot(runs[name].step, runs[name].sel(what="truth"), color=colour, label=name)
    for name, level in levels.items():
        ax.axhline(level, color=STRATEGIES[name], ls="--", lw=0.9)
        at = ax.get_yaxis_transform()
        ax.text(1.01, level, name, fontsize=8, va="center", color=STRATEGIES[name], transform=at)
    ax.set(title="distance from the true chain", xlabel="step", ylabel="KL (nats)", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8, loc="lower left")
    ax = axes[0, 1]
    for name, colour in STRATEGIES.items():
        run = runs["minimal model"].sel(what=name)
        ax.plot(run.step, run, color=colour, label=name)
    ax.set(title="minimal model: which strategy", xlabel="step", ylabel="KL (nats)", ylim=(0, None))
    ax.legend(frameon=False, fontsize=8)
    ax = axes[0, 2]
    shown = min(n_ctx, 16)
    ax.bar(range(shown), to_numpy(lags[:shown]), color=RUNS["minimal model"])
    ax.axhline(1 / n_ctx, color="0.3", ls="--", lw=0.8, label="before training")
    ax.set(title="minimal model: softmax(v)", xlabel="lag", ylabel="weight", ylim=(0, 1),
           xticks=range(0, shown, 2))  # fmt: skip
    ax.legend(frameon=False, fontsize=8)
    closed = {name: _closed(float(run.sel(what="truth")[-1]), levels) for name, run in runs.items()}
    near = {name: _plateau(run) for name, run in runs.items()}
    says = (
        f"paper: first uniform, then a plateau at unigrams, then bigrams, by a layer that looks "
        f"one back; here, of the way from the unigram to the bigram predictor, "
        f"{', '.join(f'{name} {share:+.2f}' for name, share in closed.items())} (wanted {CLOSES}; "
        f"one layer at most {STAYS}); steps nearest to unigrams of the three: minimal model "
        f"{near['minimal model']}, two layers {near['two layers']}, of {steps}; largest lag "
        f"{int(lags.argmax())} with {float(lags.max()):.2f} (before training {1 / n_ctx:.2f} each)"
    )
    holds = (
        min(closed["minimal model"], closed["two layers"]) >= CLOSES
        and closed["one layer"] <= STAYS
        and min(near["minimal model"], near["two layers"]) > 0
        and int(lags.argmax()) == 1
    )
    return Drawing(
        figure,
        "Statistical induction, one strategy after another",
        f"Edelman et al. 2024, The Evolution of Statistical Induction Heads, {URL}",
        f"Every row is {n_ctx} tokens of a Markov chain of its own. KL over the later half of the "
        "positions, on rows not trained on; dashed: predictors that ignore the row, count its "
        "tokens, or count what followed the current token. Middle: KL from each of these to the "
        "minimal model. Its second layer is linear, so it does not reach the bigram predictor.",
        Verdict(holds, says),
    )


def _closed(divergence: float, levels: dict[str, float]) -> float:
    """Where a divergence from the truth lies between the unigram (0) and bigram (1) predictors."""
    return (levels["unigram"] - divergence) / (levels["unigram"] - levels["bigram"])


def _plateau(run: DataArray) -> int:
    """For how many steps, from the first to the last record of that kind, a model is nearer to the
    unigram predictor than to either other."""
    names = list(STRATEGIES)
    nearest = run.sel(what=names).values.argmin(0)
    steps = run.step.values[nearest == names.index("unigram")]
    return int(steps[-1] - steps[0]) if len(steps) else 0
