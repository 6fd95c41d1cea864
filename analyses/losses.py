"""The loss of each of some tokens, a few at a time: all their logits are never held."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from analyses.labelled import Model
from circuits.matrices import at_least_single
from circuits.model import GPT, check_predicts

LOGITS = 2**24
"The number of logits that are held in memory at a time, or the logits of one row."
EARLY, LATE, NEAR = 50 / 512, 500 / 512, 1 / 64
"""The two token indices of the in-context score, as shares of the context (50 and 500 of 512 in the
paper), and the distance to either side over which it is averaged."""


def early_and_late(n: int) -> tuple[slice, slice]:
    """The two places of the in-context score among the losses of n tokens, of index 1 and on."""
    near = round(n * NEAR)
    middles = (max(1, round(share * n)) for share in (EARLY, LATE))
    early, late = (slice(max(0, at - near - 1), at + near) for at in middles)
    return early, late


def of_logits(
    logits: Float[Tensor, "*pos d_vocab"], targets: Int[Tensor, "*pos"]
) -> Float[Tensor, "*pos"]:
    """Loss in nats of each target, at least in single precision: -log softmax(logits)[target]."""
    every = at_least_single(logits).flatten(0, -2)  # with d_vocab last it is quicker, and exacter
    loss = F.cross_entropy(every, targets.flatten().long(), reduction="none")
    return loss.unflatten(0, targets.shape)


def of_tokens(model: Model, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
    """Loss in nats, at least in single precision, of rows[:, 1:] given what is before each; so rows
    may have one token more than the context. ValueError for a model that predicts something else.
    """
    check_predicts(model.cfg, "the next-token loss")
    done, at_once = [], max(1, LOGITS // (rows.shape[1] * model.cfg.d_vocab))
    with torch.no_grad():
        for part in rows.split(at_once):
            done.append(of_logits(model(part[:, :-1]).to(part.device), part[:, 1:]))
    return torch.cat(done)


def of_stream(
    model: GPT, resid: Float[Tensor, "token d_model"], targets: Int[Tensor, "token"]
) -> Float[Tensor, "token"]:
    """Loss in nats of the target after each final stream."""
    some, done = max(1, LOGITS // model.cfg.d_vocab), []
    for part, wanted in zip(resid.split(some), targets.split(some), strict=True):
        logits = model.unembed(model.ln_final(part[None]))[0]
        done.append(of_logits(logits.float(), wanted))
    return torch.cat(done)
