"""Framework paper, "Copying heads": eigenvalues of OV circuits (F15, F16)."""

from analyses import plots
from analyses.heads import copying
from analyses.papers.figures.record import Finding, Picture, one_layer_figure, picture_of
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT


@one_layer_figure(
    "framework/eigenvalues",
    "OV eigenvalues",
    "Framework, Summarizing OV/QK matrices (F15)",
    "most heads of the one-layer model have mostly positive eigenvalues",
)
def eigenvalues(model: GPT) -> Finding:
    """Eigenvalues of W_E W_OV W_U of every head, in the complex plane. A copying head has nearly
    all of its eigenvalues on the right, where tokens raise themselves."""
    start = at_initialisation(model)
    score = copying.score(model, centred=True)
    count, at_start = _copying_heads(model)

    def picture() -> Picture:
        trained, control = (copying.eigenvalues(found, centred=True) for found in (model, start))
        n_layers, n_heads = score.shape
        figure, axes = plots.grid(n_layers + 1, n_heads, (1.35, 1.45))
        for layer in range(n_layers):
            for head in range(n_heads):
                title = f"{score.label.values[layer, head]}  {score.values[layer, head]:+.2f}"
                plots.eigenvalues(trained[layer, head], axes[layer, head], title)
        for head in range(n_heads):
            title = f"L0H{head} at init"
            plots.eigenvalues(control[0, head], axes[-1, head], title, colour=plots.CONTROL)
        return figure

    return Finding(
        count > score.size / 2 and at_start == 0,
        f"{count} of {score.size} heads score over 0.5, at initialisation {at_start}",
        "Each point is an eigenvalue of the full OV circuit of a head, with the mean over outs "
        "subtracted. The radius is logarithmic over three decades, from a thousandth of the head's "
        "largest eigenvalue at the centre. Shaded: positive real part. The number is the score, "
        "sum(eig) / sum(|eig|). Grey, last row: the heads of layer 0 at initialisation. The test: "
        "more than half of the heads score over 0.5, and no head does at initialisation.",
        picture,
    )


@one_layer_figure(
    "framework/copying",
    "How many heads copy",
    "Framework, Detecting copying behavior (F16)",
    "10 of 12 heads of the one-layer model copy significantly",
    same_as="framework/eigenvalues",
)
def histogram(model: GPT) -> Finding:
    """The number of heads by their score sum(eig) / sum(|eig|)."""
    score, start = (
        copying.score(model, centred=True),
        copying.score(at_initialisation(model), centred=True),
    )
    count, at_start = _copying_heads(model)
    by_layer = ", ".join(
        f"{int((row > 0.5).sum())} of {row.size} in layer {int(row.layer)}" for row in score
    )
    return Finding(
        count > score.size / 2 and at_start == 0,
        f"{by_layer} score over 0.5, at initialisation {at_start}",
        "Bars count the heads by their score, sum(eig) / sum(|eig|) of the OV circuit, with the "
        "mean over outs subtracted. 1: every eigenvalue is positive; random matrices lie around 0. "
        "The test is the test of the figure before: more than half of the heads score over 0.5, "
        "and no head does at initialisation.",
        lambda: picture_of(plots.histogram([score, start], names=["trained", "at initialisation"])),
    )


def _copying_heads(model: GPT) -> tuple[int, int]:
    """The number of heads that score over 0.5, trained and at initialisation."""
    both = copying.score(model, centred=True), copying.score(at_initialisation(model), centred=True)
    trained, start = (int((score > 0.5).sum()) for score in both)
    return trained, start
