"""Figures of "A Mathematical Framework for Transformer Circuits" (Elhage et al. 2021)."""

from xarray import DataArray

from analyses import plots, prompts
from analyses.heads import attention, copying
from analyses.papers.figures.drawing import (
    FRAMEWORK,
    Drawing,
    Verdict,
    figure_of,
    patterns_by_role,
    require_layers,
)
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT


def positions(model: GPT) -> Drawing:
    """F13, "Positional heads": mean attention by distance back, per head.

    Some heads attend by position alone and show one dark column, most often at distance 0 or 1.
    """
    preference = attention.positional_preference(model)
    control = attention.positional_preference(at_initialisation(model))
    figure, axes = plots.grid(1, 2, (4.6, 0.24 * preference.label.size + 1.2))
    for ax, result, title in zip(
        axes[0], (preference, control), ("trained", "at initialisation"), strict=True
    ):
        rows = result.stack(heads=("layer", "head")).transpose("heads", "offset")
        rows = rows.drop_vars(["heads", "layer", "head"]).assign_coords(heads=rows.label.values)
        plots.heatmap(rows, ax, title, bar=title != "trained")
        ax.set(xlabel="distance from destination back to source", ylabel="")
    best = preference.where(preference.offset > 0).max("offset")
    named = best.label.values[(best > attention.THRESHOLD).values]
    at_start = int((control.where(control.offset > 0).max("offset") > attention.THRESHOLD).sum())
    says = (
        f"paper: 2 of 12 heads of the one-layer model are mainly positional; here {len(named)} of "
        f"{best.size} put over {attention.THRESHOLD:.0%} of their attention at one distance of at "
        f"least 1 ({', '.join(named) or 'none'}), {at_start} at initialisation"
    )
    return Drawing(
        figure,
        "Positional heads",
        f"Framework, Positional heads (F13), {FRAMEWORK}",
        "Mean attention of each head by distance back, on random tokens, where nothing but the "
        "position tells them apart. Distance 0 is the token itself, 1 the token before it.",
        Verdict(len(named) > 0 and at_start == 0, says),
    )


def eigenvalues(model: GPT) -> Drawing:
    """F15, "Copying heads": eigenvalues of W_E W_OV W_U of every head, in the complex plane.

    Copying heads have nearly all of them on the right, where tokens raise themselves.
    """
    trained, control = copying.eigenvalues(model), copying.eigenvalues(at_initialisation(model))
    score = copying.score(model)
    n_layers, n_heads = score.shape
    figure, axes = plots.grid(n_layers + 1, n_heads, (1.35, 1.45))
    for layer in range(n_layers):
        for head in range(n_heads):
            title = f"{score.label.values[layer, head]}  {score.values[layer, head]:+.2f}"
            plots.eigenvalues(trained[layer, head], axes[layer, head], title)
    for head in range(n_heads):
        title = f"L0H{head} at init"
        plots.eigenvalues(control[0, head], axes[-1, head], title, colour=plots.CONTROL)
    count, control_count = _copying_heads(model)
    says = (
        f"paper: most heads of the one-layer model have mostly positive eigenvalues; here "
        f"{count} of {score.size} heads score over 0.5, at initialisation {control_count}"
    )
    return Drawing(
        figure,
        "OV eigenvalues",
        f"Framework, Summarizing OV/QK matrices (F15), {FRAMEWORK}",
        "Eigenvalues of each head's full OV circuit. Radius: logarithmic over three decades, from "
        "a thousandth of the head's largest eigenvalue at the centre. Shaded: positive real part. "
        "The number is sum(eig) / sum(|eig|). Grey: before training, as many on either side.",
        Verdict(count > score.size / 2 and control_count == 0, says),
    )


def copying_histogram(model: GPT) -> Drawing:
    """F16, "Copying heads": how many heads have which sum(eig) / sum(|eig|)."""
    score, control = copying.score(model), copying.score(at_initialisation(model))
    ax = plots.histogram([score, control], names=["trained", "at initialisation"])
    count, control_count = _copying_heads(model)
    by_layer = ", ".join(
        f"{int((row > 0.5).sum())} of {row.size} in layer {int(row.layer)}" for row in score
    )
    says = (
        f"paper: 10 of 12 heads of the one-layer model copy significantly; here {by_layer} "
        f"score over 0.5, at initialisation {control_count}"
    )
    return Drawing(
        figure_of(ax),
        "How many heads copy",
        f"Framework, Detecting copying behavior (F16), {FRAMEWORK}",
        "1 means that every eigenvalue of the head's OV circuit is positive; random matrices lie "
        "around 0.",
        Verdict(count > score.size / 2 and control_count == 0, says),
    )


def repeats(model: GPT) -> Drawing:
    """I2, "Induction heads on repeated random tokens": value-weighted patterns of all heads on 20
    random tokens said three times. Induction heads show stripes 19 and 39 below the diagonal.
    """
    n = min(20, (model.cfg.n_ctx - 1) // 3)
    tokens = prompts.random_tokens(model, n, batch=8, times=3)
    figure, _ = patterns_by_role(model, tokens)
    score = attention.prefix_matching(model, tokens)
    best = int(score.values.argmax())
    says = (
        f"paper: induction heads attend to the stripes; here {score.label.values.ravel()[best]} "
        f"puts {score.values.max():.2f} of its attention there (uniform: "
        f"{score.attrs['chance']:.3f}), the best head at initialisation "
        f"{float(attention.prefix_matching(at_initialisation(model), tokens).max()):.3f}"
    )
    return Drawing(
        figure,
        f"{n} random tokens, three times",
        f"Framework, Induction heads on random repeated tokens (I2), {FRAMEWORK}",
        f"Attention times the size of the value it fetches, scaled to each head's largest entry. "
        f"Stripes {n - 1} and {2 * n - 1} below the diagonal lead to what followed the token the "
        f"last times. Frames: what each head is by its scores.",
        Verdict(float(score.max()) > attention.THRESHOLD, says),
    )


def corner(model: GPT) -> Drawing:
    """F22, "Induction heads": QK eigenvalue positivity through a previous-token head against OV
    positivity, for every head of layer 1. Induction heads stand in the upper right corner.
    """
    require_layers(model, 2, "the two heads of the induction circuit")
    writer = int(attention.previous_token(model)[0].values.argmax())

    x, y, prefix = _corner_scores(model, writer)
    figure, axes = plots.grid(1, 2, (5.2, 4.2))
    plots.scatter(x, y, prefix, axes[0, 0], "trained")
    control = _corner_scores(at_initialisation(model), writer)
    plots.scatter(*control, ax=axes[0, 1], title="at initialisation")
    induction = (prefix > 0.5).values
    inside = induction & (x > 0.8).values & (y > 0.8).values
    where = ", ".join(
        f"{name} at ({a:.2f}, {b:.2f})"
        for name, a, b in zip(x.label.values[induction], x.values[induction], y.values[induction],
                              strict=True)
    )  # fmt: skip
    says = (
        f"paper: induction heads stand in the extreme upper right corner; here {inside.sum()} of "
        f"{induction.sum()} heads with prefix matching over 0.5 have both scores over 0.8 "
        f"({where or 'there is none'})"
    )
    return Drawing(
        figure,
        "The induction corner",
        f"Framework, How induction heads work (F22), {FRAMEWORK}",
        f"Each point is a head of layer 1. Right: its query seeks, through L0H{writer} (the "
        "layer-0 head that most attends to the previous token), the token it is at. Up: it copies "
        "what it finds. The colour is measured, not read from weights.",
        Verdict(bool(induction.any() and inside[induction].all()), says),
    )


def _corner_scores(model: GPT, writer: int) -> tuple[DataArray, DataArray, DataArray]:
    """QK positivity through L0H`writer`, OV positivity and prefix matching of layer 1."""
    x = copying.composed_qk_score(model, (0, writer))[:1]
    x = x.assign_attrs(long_name=f"K-composed QK positivity through L0H{writer}")
    y = copying.score(model)[1:2]
    return x, y, attention.prefix_matching(model)[1:2]


def _copying_heads(model: GPT) -> tuple[int, int]:
    """Heads that score over 0.5, trained and at initialisation."""
    both = copying.score(model), copying.score(at_initialisation(model))
    trained, control = (int((score > 0.5).sum()) for score in both)
    return trained, control
