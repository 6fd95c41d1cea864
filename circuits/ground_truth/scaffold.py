"""What the circuits share: a GPT of zeros, the previous-token pattern, and what they refuse."""

import math
from typing import Any

import torch

from circuits.model import GPT, Attention, GPTConfig

Edges = tuple[tuple[str, str], ...]
'Edges of a circuit, each (sender, receiver) by name: ("L0H0", "L1H0.K").'
LEAK = 1e-8
"The most attention that a source may get which nothing seeks, beside 1 for what is sought."


def blank(**fields: Any) -> GPT:
    """A GPT of this config whose every weight is 0, to write a circuit into.

    Attention-only, no norm and no biases unless the fields say otherwise; float64, eval, no
    gradients.
    """
    model = GPT(GPTConfig(**{"normalization_type": None, "bias": False, **fields}))
    model.double().eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    return model


def copying_stream(d_vocab: int, n_ctx: int, gain: float, *, d_head: int) -> GPT:
    """Two layers of one head on the stream [content V | previous V | out V | place n_ctx], one dim
    per token or position: `content` holds the token, `place` its shortformer position, and the
    logits are `gain` times `out`. The heads are still to be written."""
    model = blank(
        n_layers=2,
        d_model=3 * d_vocab + n_ctx,
        n_heads=1,
        d_head=d_head,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
        positional_embedding_type="shortformer",
    )
    token, pos, out, place = torch.arange(d_vocab), torch.arange(n_ctx), 2 * d_vocab, 3 * d_vocab
    model.embed.W_E[token, token] = 1
    model.pos_embed.W_pos[pos, place + pos] = 1
    model.unembed.W_U[out + token, token] = gain
    return model


def look_back(attn: Attention, place: int, n_ctx: int, sharpness: float) -> None:
    """Make head 0 a previous-token head: the query of position i is the key of i - 1.

    Positions are one-hot from dim `place` of the stream. The first position has only itself.
    """
    pos = torch.arange(n_ctx)
    attn.W_Q[0, place + pos, (pos - 1).clamp(min=0)] = sharpness * attn.scale
    attn.W_K[0, place + pos, pos] = 1


def check_sizes(d_vocab: int, n_ctx: int, *, least: tuple[int, int]) -> None:
    """ValueError unless d_vocab and n_ctx are whole numbers and at least `least`, with which the
    circuit can show itself."""
    for name, value, bound in (("d_vocab", d_vocab, least[0]), ("n_ctx", n_ctx, least[1])):
        if not isinstance(value, int) or isinstance(value, bool) or value < bound:
            raise ValueError(f"{name}={value!r}: this circuit wants a whole number >= {bound}")


def check_gain(gain: float) -> None:
    """ValueError unless the logit of what is found is finite and above 0."""
    if not 0 < gain < math.inf:
        raise ValueError(f"gain={gain!r}: wanted is a finite number above 0")


def check_sharp(margin: float, how: str) -> None:
    """ValueError unless attention is all or nothing: exp(-margin) <= LEAK.

    The margin is how far the score that a head seeks lies above the next; `how` is its formula.
    """
    least = -math.log(LEAK)
    if not least <= margin < math.inf:
        raise ValueError(
            f"{how} is {margin:.4g}: wanted is a finite number from {least:.4g} on, from where "
            f"attention is all or nothing, as in the closed forms"
        )


def check_rest(sharpness: float, rest: float) -> None:
    """ValueError unless a match scores clearly above resting, and resting above all else."""
    if not 0 < rest < 1:
        raise ValueError(f"rest={rest!r}: wanted is a share of the match's score, above 0, below 1")
    check_sharp(sharpness * min(rest, 1 - rest), "sharpness * min(rest, 1 - rest)")


def check_induction(
    d_vocab: int, n_ctx: int, *, sharpness: float, gain: float, rest: float
) -> None:
    """ValueError unless BOS A B A fits, and attention to a match and to BOS is all or nothing."""
    check_sizes(d_vocab, n_ctx, least=(3, 4))
    check_gain(gain)
    check_rest(sharpness, rest)
