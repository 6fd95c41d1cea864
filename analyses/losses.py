"""The loss of each token, a few rows at a time, so that few logits are in memory."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from analyses.labelled import Model
from circuits.matrices import at_least_single
from circuits.model import GPT, check_predicts

LOGITS = 2**24
"The largest number of logits in memory; one row is always computed at once."
EARLY, LATE, NEAR = 50 / 512, 500 / 512, 1 / 64
"""The two token indices of the in-context score (50 and 500 of 512 in the paper), and the distance
on either side over which losses are averaged. All are shares of the context."""


def early_and_late(n: int) -> tuple[slice, slice]:
    """The two slices of the in-context score, for the losses of tokens with the indices 1 to n."""
    near = round(n * NEAR)
    middles = (max(1, round(share * n)) for share in (EARLY, LATE))
    early, late = (slice(max(0, at - near - 1), at + near) for at in middles)
    return early, late


def of_logits(
    logits: Float[Tensor, "*pos d_vocab"], targets: Int[Tensor, "*pos"]
) -> Float[Tensor, "*pos"]:
    """The loss of each target in nats, -log softmax(logits)[target], in float32 or float64."""
    every = at_least_single(logits).flatten(0, -2)  # with d_vocab last: faster and more exact
    loss = F.cross_entropy(every, targets.flatten().long(), reduction="none")
    return loss.unflatten(0, targets.shape)


def of_tokens(model: Model, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos-1"]:
    """The loss in nats of each of rows[:, 1:], given the tokens before it, in float32 or float64.
    Rows may have n_ctx + 1 tokens. ValueError for a model whose logits are not of the next token.
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
    """The loss in nats of each target, given the stream after the last block."""
    some, done = max(1, LOGITS // model.cfg.d_vocab), []
    for part, wanted in zip(resid.split(some), targets.split(some), strict=True):
        logits = model.unembed(model.ln_final(part[None]))[0]
        done.append(of_logits(logits.float(), wanted))
    return torch.cat(done)
