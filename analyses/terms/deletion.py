"""Heads that delete: their output points against a term that is already in the residual stream.

The framework paper suspects that some heads and neurons manage memory: they read a term of the
stream and write its negative. Two measures tell such heads: the projection of a head's output on
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
"A head deletes a term if its output takes away at least this share of it."
LEFT = 0.1
"And if the term's share of the final stream is larger by at least this much without the head."


def deletion(model: GPT, tokens: Int[Tensor, "batch pos"]) -> Dataset:
    """For each head and each term that was written before it, over (head, term):

    `projection`: the head's output projected on the term, as a share of the term, with `low` and
    `high`, a 95% interval over examples; -1 would delete the term. `left`: how much larger the
    term's share of the final stream is when the head writes zero; 1 would be the whole term.
    `deletes`: the projection and its interval are below -LEAST and 0, and `left` is above LEFT.

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
        before = (depths < 2 * layer + 1).tolist()
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
    """The names of the heads that delete some term, by `deletion`."""
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
