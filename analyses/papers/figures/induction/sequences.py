"""Figures of "In-context Learning and Induction Heads" (Olsson et al. 2022) that show one model on
repeated sequences (O5 at the end of training, loss by position, O13)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import plots
from analyses.heads import attention, logit_effects, masks
from analyses.heads import induction as scores
from analyses.heads.patterns import capture
from analyses.labelled import to_numpy
from analyses.papers.figures.record import Finding, Picture, figure, picture_of
from analyses.prompts import passages
from circuits.ground_truth.controls import at_initialisation
from circuits.model import GPT, Head

PASSAGE = 44
"The number of tokens of the story that are said twice."


@figure(
    "induction/prefix-matching",
    "Prefix matching",
    "Induction heads, Argument 1 (O5)",
    "induction heads form in two-layer models, in the second layer",
)
def prefix_matching(model: GPT) -> Finding:
    """Prefix matching of every head at the end of training. The claim: induction heads are in the
    second layer."""
    score = attention.prefix_matching(model)
    start = attention.prefix_matching(at_initialisation(model))
    high = score.label.values[(score > 0.5).values]
    early = int((score.sel(layer=0) > 0.5).sum())
    return Finding(
        len(high) > 0 and early == 0 and float(start.max()) < 0.5,
        f"{', '.join(high) or 'no head'} over 0.5 (best {float(score.max()):.2f}, uniform "
        f"{score.attrs['chance']:.3f}), {early} of them in layer 0; at initialisation the best "
        f"head has {float(start.max()):.3f}",
        "Bars: the mean attention of each head to the tokens that followed earlier copies of the "
        "current token, on 25 random tokens said four times, beside the model at initialisation. "
        "The test: some head is over 0.5, none of layer 0 is, and none is at initialisation.",
        lambda: picture_of(plots.bars(score, control=start)),
    )


@figure(
    "induction/loss-by-position",
    "Loss on repeated random tokens",
    "Induction heads, definitions and Argument 4",
    "the second copy is predicted in context",
)
def loss_by_position(model: GPT) -> Finding:
    """The loss at each position of random tokens said twice. Only the first copy can help to
    predict the second."""
    loss, start = scores.loss_by_position(model), at_initialisation(model)
    gain, repeat = scores.repeat_gain(model), loss.attrs["repeat"]
    second = float(loss.where(loss.pos >= repeat).mean())

    def picture() -> Picture:
        control = scores.loss_by_position(start)
        ax = plots.lines([loss, control], names=["trained", "at initialisation"])
        ax.axvline(repeat - 0.5, color="0.3", ls="--", lw=0.8)
        ax.annotate("second copy", (repeat, ax.get_ylim()[1] * 0.97), va="top", fontsize=8)
        return picture_of(ax)

    return Finding(
        gain > 1.0,
        f"the loss of the second copy is {second:.2f} nats, {gain:.2f} below the loss of the first "
        f"({second + gain:.2f}); at initialisation {scores.repeat_gain(start):+.2f}",
        "Lines: the mean loss and two standard errors over 32 sequences. Random tokens are unlike "
        "text, so a model trained on text may do worse than the uniform guess on the first copy. "
        "The test: the loss of the second copy is more than 1 nat below the loss of the first.",
        picture,
    )


@figure(
    "induction/literal-copying",
    "A literal copying head",
    "Induction heads, Argument 4 (O13)",
    "a literal copying head attends to the token after the earlier copy and raises it",
)
def literal_copying(model: GPT) -> Finding:
    """An induction head on a passage of ours and its repetition: its attention to the tokens that
    followed the same token before, and the part that it adds to the logit of each token."""
    prefix = attention.prefix_matching(model)
    layer, head = divmod(int(prefix.values.argmax()), model.cfg.n_heads)
    name, length = str(Head(layer, head)), min(PASSAGE, (model.cfg.n_ctx - 1) // 2)
    story = passages.tokens(model, length + 1)[:1]
    tokens = torch.cat([story, story[:, 1:]], 1)
    looks, adds = _copied(model, tokens, layer, head)
    control = _copied(at_initialisation(model), tokens, layer, head)
    looked, added, looked_at_start, added_at_start = (
        float(values[length + 1 :].mean()) for values in (looks, adds, *control)
    )
    first = float(adds[1 : length + 1].mean())

    def picture() -> Picture:
        words, high = model.to_str_tokens(tokens[0]), float(adds.abs().max())
        strips = {
            f"Attention of {name} to the tokens after earlier copies": (looks, 0.0, 1.0),
            f"Effect of {name} on each token's logit (red: lowers, blue: raises, up to "
            f"{high:.1f})": (adds, -high, high),
        }
        figure, axes = plots.grid(2, 1, (9.4, 1.35))
        for ax, (title, (values, *bounds)) in zip(axes[:, 0], strips.items(), strict=True):
            shown = DataArray(to_numpy(values), dims="token", attrs={"bounds": tuple(bounds)})
            plots.text(shown, words, ax, title, framed=(length + 1,))
        return figure

    return Finding(
        looked > attention.THRESHOLD and added > first + 1,
        f"in the repetition {name} puts {looked:.2f} of its attention on the tokens after earlier "
        f"copies and adds {added:+.1f} to the logits of the tokens, {first:+.1f} the first time "
        f"(at initialisation {looked_at_start:.2f} and {added_at_start:+.1f})",
        f"The first {length} tokens of a story of ours, and the same tokens again from the framed "
        "token on. Above, at each token: the attention of the head with the most prefix matching, "
        "from this token to the tokens that followed earlier copies of it. Below: the part that "
        "the head adds to the logit of the token from the token before, less the part that it adds "
        "to the mean logit. The test: in the repetition the attention is above "
        f"{attention.THRESHOLD} in the mean, and the head adds more than 1 logit more than the "
        "first time.",
        picture,
    )


def _copied(
    model: GPT, tokens: Int[Tensor, "1 pos"], layer: int, head: int
) -> tuple[Float[Tensor, " pos"], Float[Tensor, " pos"]]:
    """At each token: the attention of a head to the tokens after earlier copies of this token, and
    the part that the head adds to the logit of this token from the token before."""
    pattern = capture(model, tokens).sel(view="attention", layer=layer, head=head).values
    looks = (torch.from_numpy(pattern) * masks.to_successors(tokens)[0]).sum(-1)
    effects = logit_effects.by_source(model, tokens)[layer, head].sum("src").values
    return looks, torch.from_numpy(effects).roll(1)
