"""A run with frozen patterns: the terms that enter the stream, their way through heads, and the
inputs of the readers.

If patterns and the 1/sigma of the norms are frozen as in a run, the model is linear but for its
MLPs. Starts and ends have the names of paths.py. Starts are `embed`, `pos`, `L0 bias` and `MLP0`.
Ends are `logits`, `MLP1`, `L1H2.Q`, and `MLP1.linear` of a gated MLP.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition.stream import (
    Stream,
    Streams,
    check_run,
    entry_terms,
    norm_bias,
    stream,
    through_norm,
    whole_pattern,
)
from circuits.hooks import Cache
from circuits.model import GPT, Head, components

Read = Float[Tensor, "batch pos read"]
"The input of an end: logits [batch pos d_vocab], neurons [batch pos d_mlp], a head's q, k or v."


def start_term(model: GPT, cache: Cache, start: str) -> Stream:
    """The term that a start of paths adds to the stream."""
    if start in ("embed", "pos"):
        return entry_terms(model, check_run(model, cache))[start]
    layer = layer_of(start)
    if start.startswith("MLP"):
        return check_run(model, cache)["mlp_out", layer]
    attn = model.blocks[layer].attn
    constant = norm_bias(model, layer) @ attn.W_V + attn.b_V  # head d_head
    moved = einsum(constant, attn.W_O, "head d_head, head d_head d -> head d")
    reached = whole_pattern(model, cache, layer).sum(-1)  # 1, unless a hook has changed it
    return einsum(reached, moved, "batch head pos, head d -> batch pos d") + attn.b_O


def through_heads(model: GPT, cache: Cache, streams: Streams, heads: Sequence[Head]) -> Streams:
    """A x W_V W_O: the output of some heads of one layer for a stream x, summed over the heads. It
    is linear: patterns and the norm's scale are frozen, and biases are left out."""
    layer, numbers = heads[0].layer, [head.head for head in heads]
    attn, pattern = model.blocks[layer].attn, whole_pattern(model, cache, layer)
    v = einsum(
        through_norm(model, cache, streams, layer), attn.W_V[numbers],
        "... batch src d, head d d_head -> ... batch head src d_head",
    )  # fmt: skip
    z = pattern[:, numbers] @ v
    return einsum(z, attn.W_O[numbers], "... batch head pos e, head e d -> ... batch pos d")


def end_input(model: GPT, cache: Cache, streams: Streams, end: str) -> Float[Tensor, "... read"]:
    """The input of an end for a stream. It is linear: the norm's scale is frozen, and biases and
    shortformer positions are left out. Queries and keys are not yet turned by rotary positions, as
    hook_q and hook_k have them."""
    weights = end_weights(model, end)
    read = through_norm(model, cache, streams, weights.layer, mid=weights.mid) @ weights.W
    return smear_keys(model, read, end)


def smear_keys(
    model: GPT, k: Float[Tensor, "... pos read"], end: str
) -> Float[Tensor, "... pos read"]:
    """The keys of a head with smeared keys, each mixed with the key before it. All other inputs
    come back unchanged."""
    if not (model.cfg.smeared_keys and end.endswith(".K")):
        return k
    (layer, head), _ = components.head_input(model.cfg, end)
    s = model.blocks[layer].attn.alpha[head].sigmoid()
    return torch.cat([k[..., :1, :], s * k[..., 1:, :] + (1 - s) * k[..., :-1, :]], -2)


def turn(model: GPT, x: Float[Tensor, "*lead pos read"]) -> Float[Tensor, "*lead pos read"]:
    """Queries or keys of a head at all positions, turned as its scores read them. Without rotary
    positions they come back unchanged.

    Scores depend on differences of positions alone, so positions are counted from the start of the
    row, with pads. That is exact for all tokens, unless pads are between them. The scores that pads
    after the last token give are not sums: no token reads these pads.
    """
    if model.rotary is None:
        return x
    n = x.shape[-2]
    return model.rotary.turned(x, model.rotary.cos[:n], model.rotary.sin[:n])


def constant_term(model: GPT, cache: Cache, start: str, end: str) -> Read:
    """The term that `bias`, or `pos` of shortformer, adds at an end. It passes no head."""
    return smear_keys(model, constant_before_smearing(model, cache, start, end), end)


def constant_before_smearing(model: GPT, cache: Cache, start: str, end: str) -> Read:
    """The same term as `constant_term`, at each position, before keys are smeared."""
    weights = end_weights(model, end)
    if start == "pos":
        return check_run(model, cache)["pos_embed"] @ weights.W
    bias = norm_bias(model, weights.layer, mid=weights.mid) @ weights.W
    bias = bias if weights.b is None else bias + weights.b
    return bias.expand(*check_run(model, cache)["embed"].shape[:2], -1)


class EndWeights(NamedTuple):
    """The weight and bias with which an end reads the stream, and the place where it reads."""

    W: Float[Tensor, "d_model read"]
    b: Float[Tensor, " read"] | None
    layer: int | None
    mid: bool


def end_weights(model: GPT, end: str) -> EndWeights:
    """The weights of an end. ValueError for an end that does not exist."""
    if end == "logits":
        return EndWeights(model.W_U, model.unembed.b_U, None, False)
    if end.startswith("MLP"):
        layer, linear = components.mlp_input(model.cfg, end)
        mlp = model.blocks[layer].mlp
        if model.cfg.gated_mlp and not linear:
            return EndWeights(mlp.W_gate, mlp.b_gate, layer, True)
        return EndWeights(mlp.W_in, mlp.b_in, layer, True)
    (layer, head), what = components.head_input(model.cfg, end)
    attn = model.blocks[layer].attn
    b = getattr(attn, f"b_{what}")
    W = getattr(attn, f"W_{what}")[head]
    return EndWeights(W, None if b is None else b[head], layer, False)


def whole_input(model: GPT, cache: Cache, end: str) -> Read:
    """The input of an end in the run. Logits are computed from the final stream."""
    if end == "logits":
        return model.unembed(model.ln_final(stream(model, cache)))
    if end.startswith("MLP"):
        linear = components.mlp_input(model.cfg, end)[1]
        return check_run(model, cache)["pre_linear" if linear else "pre", layer_of(end)]
    head, what = components.head_input(model.cfg, end)
    return check_run(model, cache)[what.lower(), head.layer][:, :, head.head]


def starts(model: GPT, end: str) -> dict[str, int]:
    """The starts of all paths that reach `end`, and the depth at which each enters the stream (see
    circuits.model.depth)."""
    cfg, last = model.cfg, components.depth(model.cfg, end)
    found = {"embed": 0, **({"pos": 0} if cfg.positions_in_stream else {})}
    for layer in range(cfg.n_layers):
        if cfg.bias:
            found[f"L{layer} bias"] = components.depth(cfg, f"L{layer}H0")
        if not cfg.attn_only:
            found[f"MLP{layer}"] = components.depth(cfg, f"MLP{layer}")
    return {start: depth for start, depth in found.items() if depth < last}


def constant_starts(model: GPT, end: str) -> list[str]:
    """The starts of the terms that are added at an end and were never in the stream."""
    places = model.cfg.shortformer and end.endswith((".Q", ".K"))
    return [*(["pos"] if places else []), *(["bias"] if model.cfg.bias else [])]


def layer_of(name: str) -> int:
    """The layer in a name such as MLP0, 'L0 bias' or L0H1.Q. It is not checked here."""
    return int(re.findall(r"\d+", name)[0])
