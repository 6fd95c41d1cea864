"""The path expansion on one prompt: the size of each term, and the error of the sum.

(Elhage et al. 2021, "The path expansion trick",
https://transformer-circuits.pub/2021/framework/index.html)

Patterns and scales of norms come from the run. Sizes of logits are root mean squares over the
vocabulary of the logits less their mean, because the softmax ignores the mean. attrs["error"] is
the largest entry of the whole less the sum of all terms.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.heads import masks
from analyses.labelled import to_numpy
from circuits import paths, scores
from circuits.decomposition import Parts, entry_terms, norm_bias, through_norm
from circuits.hooks import Cache
from circuits.model import GPT, AnyHead, components

Prompt = Int[Tensor, "1 pos"]


def multiply_out(model: GPT, cache: Cache) -> Float[Tensor, "batch pos d_vocab"]:
    """The logits as a product of tensors, (Id x W_U) (Id + sum A^h x W_OV^h) ... (Id x W_E),
    with biases and MLPs added where they enter. It is an independent check of the sums over
    paths."""
    with torch.no_grad():
        x = torch.stack([*entry_terms(model, cache).values()]).sum(0)
        for layer, block in enumerate(model.blocks):
            read = through_norm(model, cache, x[None], layer)[0] + norm_bias(model, layer)
            for head in range(model.cfg.n_heads):
                moved = cache["pattern", layer][:, head] @ read
                W_V, W_O = model.W_V[layer, head], model.W_O[layer, head]
                x = x + moved @ (W_V @ W_O)
                if block.attn.b_V is not None:
                    x = x + block.attn.b_V[head] @ W_O
            x = x if block.attn.b_O is None else x + block.attn.b_O
            x = x if block.mlp is None else x + cache["mlp_out", layer]
        return model.unembed(through_norm(model, cache, x[None])[0] + norm_bias(model))


def by_head(model: GPT, tokens: Prompt) -> DataArray:
    """Sizes of the terms of the logits, (term, pos): the direct path, each head alone, and all
    virtual heads together where there are two layers; at least 0."""
    _, cache = _run(model, tokens)
    with torch.no_grad():
        orders = paths.groups(model, cache, "order")
        terms = {"direct path": orders["order 0"]}
        for head in components.every_head(model.cfg):
            terms[str(head)] = paths.groups(model, cache, "order", heads=[head])["order 1"]
        if model.cfg.n_layers > 1:
            terms["virtual heads"] = orders.stack[2:].sum(0)
    return _sizes(Parts(list(terms), torch.stack([*terms.values()]), orders.whole))


def by_order(model: GPT, tokens: Prompt) -> DataArray:
    """Sizes of the groups of terms of the logits, (term, pos), at least 0: the terms that pass no
    head, one head, two heads (virtual heads), and so on."""
    _, cache = _run(model, tokens)
    with torch.no_grad():
        orders = paths.groups(model, cache, "order")
    words = ["direct path", "heads", *(f"virtual heads of {n}" for n in range(2, len(orders)))]
    return _sizes(Parts(words[: len(orders)], orders.stack, orders.whole))


def score_terms(model: GPT, tokens: Prompt, head: AnyHead) -> DataArray:
    """The terms of a head's attention scores before the softmax, (term, dest, src). In 'order 0 x
    order 1' the query comes from the token itself and the key through one earlier head. 0 above the
    diagonal."""
    _, cache = _run(model, tokens)
    with torch.no_grad():
        parts = scores.groups(model, cache, head)
    return DataArray(
        to_numpy(parts.stack[:, 0]),
        dims=("term", "dest", "src"),
        coords={"term": list(parts)},
        name="score terms",
        attrs={"long_name": "score", "error": float(parts.remainder.abs().max())},
    )


def prefix_matching_by_term(
    model: GPT, head: AnyHead, tokens: Int[Tensor, "batch pos"] | None = None
) -> DataArray:
    """The prefix matching of each group of terms of a head's scores, (term, use), in [0, 1]:
    "alone" uses the softmax of the scores of the group alone, "without" the scores of all other
    groups.

    The term 'order 0 x order 1' has queries from the tokens and keys through one earlier head. It
    is the paper's K-composition term. attrs["whole"] is the prefix matching of all terms together.
    By default the tokens are the prompt of attention.prefix_matching.
    """
    tokens = prompts.repeated_often(model) if tokens is None else tokens
    mask = masks.to_successors(tokens)
    rows = masks.counted_destinations(mask)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
        parts = scores.groups(model, cache, head)

    def matching(score: Float[Tensor, "batch dest src"]) -> float:
        unseen = torch.ones_like(score[0], dtype=torch.bool).triu(1)
        pattern = score.masked_fill(unseen, -torch.inf).softmax(-1)
        return float((pattern * mask * rows[..., None]).sum() / rows.sum())

    values = [[matching(part), matching(parts.whole - part)] for part in parts.stack]
    return DataArray(
        np.array(values).reshape(-1, 2),
        dims=("term", "use"),
        coords={"term": list(parts), "use": ["alone", "without"]},
        name="prefix_matching",
        attrs={
            "long_name": "prefix matching",
            "bounds": (0.0, 1.0),
            "chance": float(masks.uniform_attention(mask, rows).sum() / rows.sum()),
            "whole": matching(parts.whole),
        },
    )


def neuron_terms(model: GPT, tokens: Prompt, layer: int = 0) -> DataArray:
    """The terms of the inputs of the neurons of an MLP, (term, pos): the root mean square over
    neurons of the term of each path, direct and through the heads before. ValueError for an
    attention-only model."""
    components.mlp(model.cfg, f"MLP{layer}")
    _, cache = _run(model, tokens)
    with torch.no_grad():
        parts = paths.groups(model, cache, "path", end=f"MLP{layer}")
    return _sizes(parts, centred=False)


def _run(model: GPT, tokens: Prompt) -> tuple[Tensor, Cache]:
    with torch.no_grad():
        return model.run_with_cache(tokens)


def _sizes(parts: Parts, *, centred: bool = True) -> DataArray:
    stack = parts.stack[:, 0]
    if centred:
        stack = stack - stack.mean(-1, keepdim=True)
    return DataArray(
        to_numpy(stack.square().mean(-1).sqrt()),
        dims=("term", "pos"),
        coords={"term": list(parts)},
        name="terms",
        attrs={
            "long_name": "root mean square",
            "error": float(parts.remainder.abs().max()),
            "largest": float(parts.whole.abs().max()),
        },
    )
