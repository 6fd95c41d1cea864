"""Attention scores as sums over query path x key path, and over pairs of tokens.

A score is q . k / scale. The q and the k are sums over the paths that end there, so the score is a
sum over pairs of paths. In layer 1 these are the paper's four groups: direct x direct, heads x
direct, direct x heads, heads x heads. In later layers there is a group for each pair of orders.
(Elhage et al. 2021, "Path expansion of attention scores QK circuit",
https://transformer-circuits.pub/2021/framework/index.html)

Rotary positions turn q and k before they meet: a score is q R(i - j) k^T / scale. R is linear, so
the sums stay exact.

Every term is [batch dest src]. It is 0 where the destination does not see the source; the model has
-inf there. Earlier patterns and the scales of norms are frozen as in the run.
"""

import torch
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.decomposition import paths
from circuits.decomposition.algebra import fold_norm
from circuits.decomposition.frozen import (
    constant_before_smearing,
    constant_starts,
    start_term,
    starts,
    turn,
)
from circuits.decomposition.parts import Parts
from circuits.decomposition.paths import By
from circuits.decomposition.stream import check_run, whole_pattern
from circuits.hooks import Cache
from circuits.model import GPT, AnyHead, AnyPath, check_causal, components


def term(model: GPT, cache: Cache, query: AnyPath, key: AnyPath) -> Float[Tensor, "batch dest src"]:
    """The part of a head's scores that a query path and a key path make together. The paths end in
    the .Q and the .K of one head, as 'embed > L1H2.Q' and 'embed > L0H1 > L1H2.K'."""
    query, key = (paths.path(model, one) for one in (query, key))
    head = query.end.removesuffix(".Q")
    if (query.end, key.end) != (f"{head}.Q", f"{head}.K"):
        raise ValueError(f"wanted paths to the .Q and the .K of one head, got {query} and {key}")
    q, k = (turn(model, paths.value(model, cache, path)) for path in (query, key))
    scores = einsum(q, k, "batch dest e, batch src e -> batch dest src")
    return scores.where(_seen(model, cache, query.end), 0) / _scale(model, query.end)


def groups(model: GPT, cache: Cache, head: AnyHead, by: By = "order") -> Parts:
    """A head's scores before the softmax as a sum over pairs of groups of query and key paths,
    [group batch dest src]. The groups are those of `paths.groups`: in 'order 0 x order 1' the
    query comes from the token itself, and the key through one earlier head."""
    head = components.head(model.cfg, head)
    q, k = (paths.groups(model, cache, by, end=f"{head}.{what}") for what in "QK")
    queries, keys = turn(model, q.stack), turn(model, k.stack)
    terms = einsum(queries, keys, "m batch dest e, n batch src e -> m n batch dest src")
    seen = _seen(model, cache, f"{head}.Q")
    whole = cache["attn_scores", head.layer][:, head.head].where(seen, 0)
    labels = [f"{one} x {other}" for one in q for other in k]
    scale = _scale(model, f"{head}.Q")
    return Parts(labels, terms.flatten(0, 1).where(seen, 0) / scale, whole)


def by_token(
    model: GPT, cache: Cache, head: AnyHead, *, dest: int, src: int
) -> Float[Tensor, "batch query_token key_token"]:
    """The score of one destination for one source as a sum over pairs of tokens. Entry [i, j] is
    the part that token i makes through the destination's query and token j through the source's
    key, directly or through earlier heads.

    Everything that enters the stream at a position belongs to the token of that position: its
    embedding, position, biases and MLP outputs. (Elhage et al. 2021, the token-by-token attribution
    of an induction head's scores.)
    """
    head = components.head(model.cfg, head)
    pos = check_run(model, cache)["embed"].shape[1]
    check_causal(model.cfg, "a score by token")
    if not 0 <= src <= dest < pos:
        raise ValueError(
            f"a source is at or before its destination, both among {pos} positions counted from 0; "
            f"got source {src}, destination {dest}"
        )
    q = read_by_token(model, cache, f"{head}.Q", dest)
    k = read_by_token(model, cache, f"{head}.K", src)
    if model.rotary is not None:
        q = q @ model.rotary.matrix(torch.tensor(dest - src))
    return einsum(q, k, "batch i e, batch j e -> batch i j") / _scale(model, f"{head}.Q")


def read_by_token(
    model: GPT, cache: Cache, end: str, pos: int
) -> Float[Tensor, "batch token d_head"]:
    """The part of a head's q, k or v ('L1H2.K') at one position that each token makes; the parts
    sum to it.

    The computation starts at the end and goes down layer by layer. At each layer it has the
    dependence of the end on the stream at every position.
    """
    (layer, number), what = components.head_input(model.cfg, end)
    length = check_run(model, cache)["embed"].shape[1]
    if not 0 <= pos < length:
        raise ValueError(f"there is no position {pos} among {length}, counted from 0")
    attn, begin = model.blocks[layer].attn, starts(model, end)
    W = fold_norm(model.blocks[layer].ln1, getattr(attn, f"W_{what}")[number])
    embed = cache["embed"]
    brought = embed.new_zeros(*embed.shape[:2], W.shape[1])
    depends = embed.new_zeros(*embed.shape, W.shape[1])  # batch token d_model d_head
    for at, share in _read_at(attn.alpha if what == "K" else None, number, pos):
        depends[:, at] = share * W / _sigma(model, cache, layer)[:, at, :, None]
        for name in constant_starts(model, end):
            brought[:, at] += share * constant_before_smearing(model, cache, name, end)[:, at]
    layers = {components.depth(model.cfg, f"L{n}H0"): n for n in range(model.cfg.n_layers)}
    for depth in reversed(range(components.depth(model.cfg, end))):
        for name in (name for name, enters in begin.items() if enters == depth):
            stream = start_term(model, cache, name)
            brought += einsum(stream, depends, "batch token d, batch token d e -> batch token e")
        if depth in layers:
            depends = depends + _through_heads(model, cache, layers[depth], depends)
    return brought


def _through_heads(
    model: GPT, cache: Cache, layer: int, depends: Float[Tensor, "batch dest d_model e"]
) -> Float[Tensor, "batch src d_model e"]:
    """The dependence on the stream before a layer's heads that goes through these heads, given the
    dependence on the stream after these heads."""
    attn, sigma = model.blocks[layer].attn, _sigma(model, cache, layer)
    W_V = fold_norm(model.blocks[layer].ln1, attn.W_V)
    written = einsum(depends, attn.W_O, "b dest d e, head f d -> b head dest f e")
    pattern = whole_pattern(model, cache, layer) / sigma.mT[:, None]  # b head dest src
    moved = einsum(pattern, written, "b head dest src, b head dest f e -> b head src f e")
    return einsum(moved, W_V, "b head src f e, head d f -> b src d e")


def _read_at(alpha: Tensor | None, head: int, pos: int) -> list[tuple[int, float | Tensor]]:
    """The positions that a query, key or value is read from, and the share of each. A smeared key
    mixes two positions."""
    if alpha is None or pos == 0:
        return [(pos, 1.0)]
    share = alpha[head].sigmoid()
    return [(pos, share), (pos - 1, 1 - share)]


def _seen(model: GPT, cache: Cache, end: str) -> Bool[Tensor, "batch dest src"]:
    """True where a destination sees a source; the head's other scores are -inf."""
    layer, number = components.head_input(model.cfg, end)[0]
    return ~check_run(model, cache)["attn_scores", layer][:, number].isneginf()


def _sigma(model: GPT, cache: Cache, layer: int) -> Float[Tensor, "batch pos 1"]:
    """The scale of the norm before the heads of a layer, or 1 without a norm."""
    if model.cfg.normalization_type is None:
        return torch.ones_like(cache["embed"][..., :1])
    return cache["scale", layer, "ln1"]


def _scale(model: GPT, end: str) -> float:
    return model.blocks[components.head_input(model.cfg, end)[0].layer].attn.scale
