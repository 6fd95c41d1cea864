"""A run with frozen patterns: the terms that enter the stream, how heads move them, how they are
read.

If the patterns and the 1/sigma of the norms are those of a run, everything but the MLPs is linear.
Starts and ends have the names of paths.py: starts are `embed`, `pos`, `L0 bias`, `MLP0`; ends are
`logits`, `MLP1`, `L1H2.Q`.
"""

import re
from collections.abc import Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.decomposition.stream import (
    Stream,
    Streams,
    entering,
    norm_bias,
    same_run,
    stream,
    through_norm,
    whole_pattern,
)
from circuits.hooks import Cache
from circuits.model import GPT, Head, components

Read = Float[Tensor, "batch pos read"]
"The input of an end: logits [batch pos d_vocab], neurons [batch pos d_mlp], a head's q, k or v."


def source(model: GPT, cache: Cache, start: str) -> Stream:
    """The term that a start of paths adds to the stream."""
    if start in ("embed", "pos"):
        return entering(model, same_run(model, cache))[start]
    layer = layer_of(start)
    if start.startswith("MLP"):
        return same_run(model, cache)["mlp_out", layer]
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


def read_by_end(model: GPT, cache: Cache, streams: Streams, end: str) -> Float[Tensor, "... read"]:
    """The input of an end for a stream. It is linear: the norm's scale is frozen, and biases and
    shortformer positions are left out."""
    if end == "logits":
        return through_norm(model, cache, streams) @ model.W_U
    layer = layer_of(end)
    if end.startswith("MLP"):
        return through_norm(model, cache, streams, layer, mid=True) @ model.W_in[layer]
    head, what = components.head_input(model.cfg, end)
    W = getattr(model.blocks[layer].attn, f"W_{what}")[head.head]
    return smeared(model, through_norm(model, cache, streams, layer) @ W, end)


def smeared(model: GPT, k: Float[Tensor, "... pos d_head"], end: str) -> Float[Tensor, "... pos _"]:
    """The keys of a head with smeared keys, each mixed with the key before it. Queries, values and
    keys that are not smeared come back unchanged."""
    head, what = components.head_input(model.cfg, end)
    alpha = model.blocks[head.layer].attn.alpha
    if what != "K" or alpha is None:
        return k
    s = alpha[head.head].sigmoid()
    return torch.cat([k[..., :1, :], s * k[..., 1:, :] + (1 - s) * k[..., :-1, :]], -2)


def constant(model: GPT, cache: Cache, start: str, end: str) -> Read:
    """The term that `bias`, or `pos` of shortformer, adds at an end. It passes no head."""
    value = constant_before_smearing(model, cache, start, end)
    return smeared(model, value, end) if end.endswith(".K") else value


def constant_before_smearing(model: GPT, cache: Cache, start: str, end: str) -> Read:
    """The same term as `constant`, at each position, before keys are smeared."""
    if start == "pos":
        head, what = components.head_input(model.cfg, end)
        W = getattr(model.blocks[head.layer].attn, f"W_{what}")[head.head]
        return same_run(model, cache)["pos_embed"] @ W
    if end == "logits":
        W, b, at = model.W_U, model.unembed.b_U, norm_bias(model)
    elif end.startswith("MLP"):
        layer = layer_of(end)
        mlp = model.blocks[layer].mlp
        W, b, at = mlp.W_in, mlp.b_in, norm_bias(model, layer, mid=True)
    else:
        head, what = components.head_input(model.cfg, end)
        attn = model.blocks[head.layer].attn
        W, b = (getattr(attn, f"{kind}_{what}")[head.head] for kind in "Wb")
        at = norm_bias(model, head.layer)
    batch_pos = same_run(model, cache)["embed"].shape[:2]
    return (at @ W + b).expand(*batch_pos, -1)


def whole_input(model: GPT, cache: Cache, end: str) -> Read:
    """The input of an end in the run. Logits are computed from the final stream."""
    if end == "logits":
        return model.unembed(model.ln_final(stream(model, cache)))
    if end.startswith("MLP"):
        return same_run(model, cache)["pre", layer_of(end)]
    head, what = components.head_input(model.cfg, end)
    return same_run(model, cache)[what.lower(), head.layer][:, :, head.head]


def starts(model: GPT, end: str) -> dict[str, int]:
    """The starts of all paths that reach `end`, and the depth at which each enters the stream (see
    circuits.model.depth)."""
    cfg, last = model.cfg, components.depth(model.cfg, end)
    found = {"embed": 0, **({"pos": 0} if cfg.positions_in_stream else {})}
    for layer in range(cfg.n_layers):
        if cfg.bias:
            found[f"L{layer} bias"] = 2 * layer + 1
        if not cfg.attn_only:
            found[f"MLP{layer}"] = 2 * layer + 2
    return {start: depth for start, depth in found.items() if depth < last}


def constant_starts(model: GPT, end: str) -> list[str]:
    """The starts of the terms that are added at an end and were never in the stream."""
    places = model.cfg.shortformer and end.endswith((".Q", ".K"))
    return [*(["pos"] if places else []), *(["bias"] if model.cfg.bias else [])]


def layer_of(name: str) -> int:
    """The layer in a name such as MLP0, 'L0 bias' or L0H1.Q. It is not checked here."""
    return int(re.findall(r"\d+", name)[0])
