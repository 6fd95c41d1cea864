"""Figures of "In-context Learning and Induction Heads" (Olsson et al. 2022)."""

from analyses import attention, plots
from analyses import induction as scores
from analyses.figures.drawing import INDUCTION, Drawing, Verdict, at_initialisation, figure_of
from circuits.model import GPT


def prefix_matching(model: GPT) -> Drawing:
    """O5, at the end of training: prefix matching of every head. Induction heads are in the second
    layer, and no head has it before training."""
    score = attention.prefix_matching(model)
    control = attention.prefix_matching(at_initialisation(model))
    ax = plots.bars(score, control)
    high = score.label.values[(score > 0.5).values]
    early = int((score.sel(layer=0) > 0.5).sum())
    says = (
        f"paper: induction heads form in two-layer models, in the second layer; here "
        f"{', '.join(high) or 'no head'} over 0.5 (best {float(score.max()):.2f}, uniform "
        f"{score.attrs['chance']:.3f}), {early} of them in layer 0; at initialisation the best "
        f"head has {float(control.max()):.3f}"
    )
    return Drawing(
        figure_of(ax),
        "Prefix matching",
        f"Induction heads, Argument 1 (O5), {INDUCTION}",
        "Mean attention to the tokens that followed earlier copies of the current one, on 25 "
        "random tokens said four times.",
        Verdict(len(high) > 0 and early == 0 and float(control.max()) < 0.5, says),
    )


def loss_by_position(model: GPT) -> Drawing:
    """Loss at each position of random tokens said twice: the second copy is predicted by what was
    read in the first, by nothing else."""
    loss = scores.loss_by_position(model)
    control = scores.loss_by_position(at_initialisation(model))
    ax = plots.lines([loss, control], ["trained", "at initialisation"])
    ax.axvline(loss.attrs["repeat"] - 0.5, color="0.3", ls="--", lw=0.8)
    ax.annotate(
        "second copy", (loss.attrs["repeat"], ax.get_ylim()[1] * 0.97), va="top", fontsize=8
    )
    gain = scores.repeat_gain(model)
    second = float(loss.where(loss.position >= loss.attrs["repeat"]).mean())
    says = (
        f"paper: the second copy is predicted in context; here its loss is {second:.2f} nats, "
        f"{gain:.2f} below the first copy's ({second + gain:.2f}); at initialisation "
        f"{scores.repeat_gain(at_initialisation(model)):+.2f}"
    )
    return Drawing(
        figure_of(ax),
        "Loss on repeated random tokens",
        f"Induction heads, definitions and Argument 4, {INDUCTION}",
        "Mean loss and two standard errors over 32 sequences. Random tokens are unlike any text: "
        "a model trained on text does worse than uniform on the first copy.",
        Verdict(gain > 1.0, says),
    )
