"""One run frozen: what enters the stream, how heads carry it, and what arrives where it is read.

With patterns and the 1/sigma of norms taken from a run, all but the MLPs is linear. Starts and ends
are named as in paths.py: from `embed`, `pos`, `L0 bias`, `MLP0` to `logits`, `MLP1`, `L1H2.Q`.
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
"What an end reads: logits [batch pos d_vocab], neurons [batch pos d_mlp], a head's q, k or v."


def source(model: GPT, cache: Cache, start: str) -> Stream:
    """What a start of paths brings into the stream."""
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


def carried(model: GPT, cache: Cache, streams: Streams, heads: Sequence[Head]) -> Streams:
    """A x W_V W_O: what heads of one layer together make of a stream, with their patterns and the
    scale of their norm frozen; linear, biases aside."""
    layer, numbers = heads[0].layer, [head.head for head in heads]
    attn, pattern = model.blocks[layer].attn, whole_pattern(model, cache, layer)
    v = einsum(
        through_norm(model, cache, streams, layer), attn.W_V[numbers],
        "... batch src d, head d d_head -> ... batch head src d_head",
    )  # fmt: skip
    z = pattern[:, numbers] @ v
    return einsum(z, attn.W_O[numbers], "... batch head pos e, head e d -> ... batch pos d")


def arrived(model: GPT, cache: Cache, streams: Streams, end: str) -> Float[Tensor, "... read"]:
    """What an end reads of a stream, its norm's scale frozen, biases and positions aside."""
    if end == "logits":
        return through_norm(model, cache, streams) @ model.W_U
    layer = layer_of(end)
    if end.startswith("MLP"):
        return through_norm(model, cache, streams, layer, mid=True) @ model.W_in[layer]
    head, what = reader(model, end)
    W = getattr(model.blocks[layer].attn, f"W_{what}")[head.head]
    return smeared(model, through_norm(model, cache, streams, layer) @ W, end)


def smeared(model: GPT, k: Float[Tensor, "... pos d_head"], end: str) -> Float[Tensor, "... pos _"]:
    """Keys as a head uses them: mixed with the key before where the model smears them."""
    head, what = reader(model, end)
    alpha = model.blocks[head.layer].attn.alpha
    if what != "K" or alpha is None:
        return k
    s = alpha[head.head].sigmoid()
    return torch.cat([k[..., :1, :], s * k[..., 1:, :] + (1 - s) * k[..., :-1, :]], -2)


def constant(model: GPT, cache: Cache, start: str, end: str) -> Read:
    """What `bias` or shortformer's `pos` adds at an end: it passes no head on the way."""
    value = added(model, cache, start, end)
    return smeared(model, value, end) if end.endswith(".K") else value


def added(model: GPT, cache: Cache, start: str, end: str) -> Read:
    """`constant` before keys are smeared: what is added at each position."""
    if start == "pos":
        pos = same_run(model, cache)["pos_embed"]
        head, what = reader(model, end)
        W = getattr(model.blocks[head.layer].attn, f"W_{what}")[head.head]
        return pos @ W
    if end == "logits":
        W, b, at = model.W_U, model.unembed.b_U, norm_bias(model)
    elif end.startswith("MLP"):
        layer = layer_of(end)
        mlp = model.blocks[layer].mlp
        W, b, at = mlp.W_in, mlp.b_in, norm_bias(model, layer, mid=True)
    else:
        head, what = reader(model, end)
        attn = model.blocks[head.layer].attn
        W, b = (getattr(attn, f"{kind}_{what}")[head.head] for kind in "Wb")
        at = norm_bias(model, head.layer)
    batch_pos = same_run(model, cache)["embed"].shape[:2]
    return (at @ W + b).expand(*batch_pos, -1)


def whole(model: GPT, cache: Cache, end: str) -> Read:
    """What an end really read in the run; logits are made anew from the final stream."""
    if end == "logits":
        return model.unembed(model.ln_final(stream(model, cache)))
    if end.startswith("MLP"):
        return same_run(model, cache)["pre", layer_of(end)]
    head, what = reader(model, end)
    return same_run(model, cache)[what.lower(), head.layer][:, :, head.head]


def starts(model: GPT, end: str) -> dict[str, int]:
    """What can start a path that reaches `end`, and the depth where it enters the stream."""
    cfg, last = model.cfg, components.depth(model.cfg, end)
    in_stream = cfg.positional_embedding_type != "none" and not cfg.shortformer
    found = {"embed": 0, **({"pos": 0} if in_stream else {})}
    for layer in range(cfg.n_layers):
        if cfg.bias:
            found[f"L{layer} bias"] = 2 * layer + 1
        if not cfg.attn_only:
            found[f"MLP{layer}"] = 2 * layer + 2
    return {start: depth for start, depth in found.items() if depth < last}


def aside(model: GPT, end: str) -> list[str]:
    """What is added at an end without having been in the stream."""
    places = model.cfg.shortformer and end.endswith((".Q", ".K"))
    return [*(["pos"] if places else []), *(["bias"] if model.cfg.bias else [])]


def reader(model: GPT, end: str) -> tuple[Head, str]:
    """The head and which of Q, K and V an end such as L1H2.K names; ValueError if none."""
    name, _, what = end.partition(".")
    if what not in ("Q", "K", "V"):
        raise ValueError(f"a path ends in logits, MLP0 or a head's {name}.Q, .K or .V; got {end!r}")
    return components.head(model.cfg, name), what


def layer_of(name: str) -> int:
    """The layer of MLP0, 'L0 bias' or L0H1.Q, whose existence is checked elsewhere."""
    return int(re.findall(r"\d+", name)[0])
