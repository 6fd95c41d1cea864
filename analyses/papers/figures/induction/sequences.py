"""Figures of "In-context Learning and Induction Heads" (Olsson et al. 2022)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, logit_effects, masks
from analyses.heads import induction as scores
from analyses.heads.patterns import capture
from analyses.labelled import to_numpy
from analyses.papers.figures.drawing import INDUCTION, Drawing, Verdict, figure_of
from analyses.prompts import passages
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, Head

PASSAGE = 44
"Tokens of the story that are said twice."


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
    second = float(loss.where(loss.pos >= loss.attrs["repeat"]).mean())
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


def literal_copying(model: GPT) -> Drawing:
    """O13: an induction head on a passage of ours and its repetition: how much it attends to what
    followed the same token before, and what it adds to the logit of the token that stands there."""
    prefix = attention.prefix_matching(model)
    layer, head = divmod(int(prefix.values.argmax()), model.cfg.n_heads)
    name, length = str(Head(layer, head)), min(PASSAGE, (model.cfg.n_ctx - 1) // 2)
    story = passages.tokens(model, length + 1)[:1]
    tokens = torch.cat([story, story[:, 1:]], 1)
    looks, adds = _copied(model, tokens, layer, head)
    second = slice(length + 1, None)
    control = _copied(at_initialisation(model), tokens, layer, head)
    words, high = model.to_str_tokens(tokens[0]), float(adds.abs().max())
    figure, axes = plots.grid(2, 1, (9.4, 1.35))
    for ax, values, bounds, title in (
        (axes[0, 0], looks, (0.0, 1.0), f"Attention of {name} to what followed the token before"),
        (axes[1, 0], adds, (-high, high),
         f"What {name} adds to each token's logit (red: lowers, blue: raises, up to {high:.1f})"),
    ):  # fmt: skip
        plots.text(words, DataArray(to_numpy(values), dims="token", attrs={"bounds": bounds}), ax,
                   title, framed=(length + 1,))  # fmt: skip
    means = [float(values[second].mean()) for values in (looks, adds)]
    first = float(adds[1 : length + 1].mean())
    says = (
        f"paper: a literal copying head attends to the token after the earlier copy and raises it; "
        f"here {name} puts {means[0]:.2f} of its attention there in the repetition and adds "
        f"{means[1]:+.1f} to the logits of its tokens, {first:+.1f} the first time (at "
        f"initialisation {float(control[0][second].mean()):.2f} and "
        f"{float(control[1][second].mean()):+.1f})"
    )
    return Drawing(
        figure,
        "A literal copying head",
        f"Induction heads, Argument 4 (O13), {INDUCTION}",
        f"The first {length} tokens of a story of ours, and the same again from the framed token "
        "on. Above, at each token: the attention from it to the tokens that followed earlier "
        "copies of it. Below: what the head adds to the logit of that very token from the one "
        "before, over the mean logit.",
        Verdict(means[0] > attention.THRESHOLD and means[1] > first + 1, says),
    )


def _copied(
    model: GPT, tokens: Int[Tensor, "1 pos"], layer: int, head: int
) -> tuple[Float[Tensor, " pos"], Float[Tensor, " pos"]]:
    """At each token: a head's attention to successors of its earlier copies, and what the head adds
    to its logit from the token before."""
    pattern = capture(model, tokens).sel(view="attention", layer=layer, head=head).values
    looks = (torch.from_numpy(pattern) * masks.to_successors(tokens)[0]).sum(-1)
    effects = logit_effects.by_source(model, tokens)[layer, head].sum("src").values
    return looks, torch.from_numpy(effects).roll(1)
