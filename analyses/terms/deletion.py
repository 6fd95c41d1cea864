"""Heads that delete: they write the negative of a term that is already in the residual stream.

The framework paper suspects that some heads and neurons manage memory: they read a term of the
stream and write its negative. Two measures find such heads: the projection of a head's output on
the term, and the change of the term's share in the final stream without the head. (Elhage et al.
2021, "Subspaces and residual stream bandwidth"; the projections as in Janiak et al. 2023, "An
adversarial example for direct logit attribution: memory management in gelu-4l",
https://arxiv.org/abs/2310.07325)
"""

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, Dataset

from analyses.labelled import interval, to_numpy
from circuits import residual
from circuits.decomposition import head_results
from circuits.hooks import Cache
from circuits.interventions import edit, run_cells, zeros
from circuits.model import GPT, components

LEAST = 0.2
"A head deletes a term if its output removes at least this share of it, ..."
LEFT = 0.1
"... and if the share of the term in the final stream is larger by at least this without the head."


def deletion(model: GPT, tokens: Int[Tensor, "batch pos"]) -> Dataset:
    """Measures of each head and each term that is written before it, over (head, term).

    `projection` is the head's output projected on the term, as a share of the term; -1 would delete
    the term. `low` and `high` are its 95% interval over examples. `left` is the rise of the term's
    share in the final stream when the head writes zero; 1 would be the whole term. `deletes` is
    True if the projection is below -LEAST, its interval is below 0, and `left` is above LEFT.

    Terms are the embedding, positions, and heads and MLPs of earlier layers. NaN where a term does
    not come before the head.
    """
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        parts = residual.components(model, cache)
    known = [name for name in parts if " b_" not in name]
    terms = torch.stack([parts[name] for name in known])  # term batch pos d_model
    sizes = terms.square().sum((-2, -1))  # term batch
    depths = torch.tensor([components.depth(model.cfg, name) for name in known])
    rows = []
    for layer in range(model.cfg.n_layers):
        before = (depths < components.depth(model.cfg, f"L{layer}H0")).tolist()
        results = head_results(model, cache, layer)
        ends = _without_each_head(model, tokens, cache, layer) - cache["resid_post", -1]
        for head in range(model.cfg.n_heads):
            along = einsum(results[:, :, head], terms, "b p d, t b p d -> t b")
            more = einsum(ends[head], terms, "b p d, t b p d -> t b")
            rows.append(_row(along, more, sizes, before))
    names = [str(head) for head in components.every_head(model.cfg)]
    stacked = torch.stack(rows) if rows else torch.zeros(0, 4, len(known))
    columns = ("projection", "low", "high", "left")
    values = {name: (("head", "term"), to_numpy(stacked[:, i])) for i, name in enumerate(columns)}
    found = Dataset(values, {"head": names, "term": known})
    deletes = (found.projection < -LEAST) & (found.high < 0) & (found.left > LEFT)
    return found.assign(deletes=deletes)


def deleting_heads(found: Dataset) -> list[str]:
    """The names of the heads that delete a term. `found` is from `deletion`."""
    any_term: DataArray = found.deletes.any("term")
    return [str(name) for name in found["head"].values[any_term.values]]


def _without_each_head(
    model: GPT, tokens: Int[Tensor, "batch pos"], cache: Cache, layer: int
) -> Float[Tensor, "head batch pos d_model"]:
    """The final stream when each head of a layer writes zero."""
    zero = zeros(cache, ("z", layer))
    cells = [[edit(model, ("z", layer), zero, head=head)] for head in range(model.cfg.n_heads)]
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    return run_cells(model, tokens, cells, [last])[last].unflatten(0, (len(cells), -1))


def _row(
    along: Float[Tensor, "term batch"],
    more: Float[Tensor, "term batch"],
    sizes: Float[Tensor, "term batch"],
    before: list[bool],
) -> Float[Tensor, "4 term"]:
    low, high = interval(along.mT, sizes.mT)
    values = torch.stack([along.sum(1) / sizes.sum(1), low, high, more.sum(1) / sizes.sum(1)])
    return values.masked_fill(~torch.tensor(before), torch.nan)
