"""Induction: A B ... A -> B, on random tokens that are said twice.

prefix_matching looks at where a head attends, copying at what it does with what it finds, and
loss_by_position at what the model gains. (Olsson et al. 2022,
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

import torch
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.attention import pattern_or_value, prefix_matching
from analyses.labelled import Model, per_head
from circuits.algebra import unembedding
from circuits.model import GPT

__all__ = ["copying", "loss_by_position", "prefix_matching", "repeat_gain"]


def copying(model: GPT, length: int = 25, *, batch: int = 10, seed: int = 0) -> DataArray:
    """How far a head raises the logit of the token it attends to, (layer, head), in [0, 1].

    On `length` random tokens: each source's value goes through W_O and W_U, the mean logit is
    subtracted and falls are cut off; of the raise that the tokens of the sample get, the share that
    the attended token gets is averaged over sources by attention. attrs["chance"] is that share if
    all are raised alike. (Olsson et al. 2022 scale a score of this kind to -1 ... 1.)
    """
    length = min(length, model.cfg.n_ctx - 1)
    tokens = prompts.random_tokens(model, length, batch=batch, seed=seed)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=pattern_or_value)
        W_U = unembedding(model)
        W_U = (W_U - W_U.mean(-1, keepdim=True)).T[tokens[:, 1:]]  # batch out d_model
        same = tokens[:, 1:, None] == tokens[:, None, 1:]  # batch src out
        shares, rounding = [], 1e3 * torch.finfo(W_U.dtype).eps
        for layer, W_O in enumerate(model.W_O):
            pattern, v = cache["pattern", layer][:, :, 1:, 1:], cache["v", layer][:, 1:]
            raised = torch.einsum("bshe,hed,bod->bhso", v, W_O, W_U).relu()
            total = raised.sum(-1)
            own = (raised * same[:, None]).sum(-1) / total.clamp(min=1e-30)
            size = torch.einsum("bsh,h->bhs", v.norm(dim=-1), W_O.norm(dim=(-2, -1)))
            own = own.where(total > rounding * size * W_U.norm(dim=-1).max(), 0.0)
            attended = (pattern * own[:, :, None]).sum((0, 2, 3))
            shares.append(attended / pattern.sum((0, 2, 3)).clamp(min=1e-12))
    values = torch.stack(shares) if shares else torch.empty(0, model.cfg.n_heads)
    words = "raise of the attended token, of all in the sample"
    chance = same.float().mean().item()
    return per_head(values, "copying", long_name=words, chance=chance, bounds=(0.0, 1.0))


def loss_by_position(
    model: Model, length: int | None = None, *, batch: int = 32, seed: int = 0
) -> DataArray:
    """Loss in nats of each token of BOS + R + R, (sequence, position); positions 1 to 2 length.

    attrs["repeat"] is the first position that can be predicted from the first copy.
    """
    tokens = prompts.repeated(model, length, batch=batch, seed=seed)
    with torch.no_grad():
        losses: Float[Tensor, "batch pos"] = model(tokens, return_type="loss", loss_per_token=True)
    n = (tokens.shape[1] - 1) // 2
    return DataArray(
        losses.cpu().numpy(),
        dims=("sequence", "position"),
        coords={"position": range(1, 2 * n + 1)},
        name="loss",
        attrs={"units": "nats", "long_name": "loss", "repeat": n + 2},
    )


def repeat_gain(
    model: Model, length: int | None = None, *, batch: int = 32, seed: int = 0
) -> float:
    """Mean loss of the first copy less that of the second, in nats: 0 where nothing is recalled."""
    loss = loss_by_position(model, length, batch=batch, seed=seed).mean("sequence")
    second = loss.position >= loss.attrs["repeat"]
    return float(loss[~second].mean() - loss[second].mean())
