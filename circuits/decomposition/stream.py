"""The residual stream of one run: its values, its terms, and its norms.

A place in the stream is given by `layer` and `mid`. The heads of block `layer` read the stream
before this block. With `mid` the place is between the heads and the MLP of the block. With layer
None or n_layers it is the final stream, which the unembedding reads. Negative layers count from the
last block.
"""

from collections.abc import Iterator

import torch
from einops import einsum
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from circuits.hooks import Cache
from circuits.model import GPT, Head, Norm

Stream = Float[Tensor, "batch pos d_model"]
Streams = Float[Tensor, "*lead batch pos d_model"]
Labelled = tuple[list[str], Float[Tensor, "component batch pos d_model"]]
"The labels of some components, and the terms that they write."


def check_run(model: GPT, cache: Cache, tokens: Int[Tensor, "batch pos"] | None = None) -> Cache:
    """The cache itself. ValueError if it is from another model or other tokens, or has no batch."""
    if not isinstance(cache, Cache):
        raise ValueError(f"wanted the Cache of run_with_cache, got {type(cache).__name__}")
    known = model if cache.model is None else cache.model
    if known is not model or cache.n_layers != model.cfg.n_layers:
        raise ValueError("the cache is of another model's run: take run_with_cache of this one")
    if "embed" in cache and cache["embed"].ndim != 3:
        raise ValueError("the cache has no batch dim: run without remove_batch_dim")
    if "embed" in cache and cache["embed"].shape[2] != model.cfg.d_model:
        raise ValueError(f"the cache is of a stream of width {cache['embed'].shape[2]}, not "
                         f"d_model={model.cfg.d_model}: it is of another model's run")  # fmt: skip
    kept = next((value for value in cache.values() if value.is_floating_point()), model.W_E)
    if (kept.dtype, kept.device) != (model.W_E.dtype, model.W_E.device):
        raise ValueError(
            f"the cache is {kept.dtype} on {kept.device}, the model {model.W_E.dtype} on "
            f"{model.W_E.device}: bring one to the other with .to(...)"
        )
    if tokens is not None and "tokens" in cache:
        kept = cache["tokens"]
        if not torch.equal(kept, tokens.to(kept.device)):
            raise ValueError(
                f"the cache is of a run on other tokens, {list(kept.shape)}, than these, "
                f"{list(tokens.shape)}"
            )
    return cache


def head_results(model: GPT, cache: Cache, layer: int) -> Float[Tensor, "batch pos head d_model"]:
    """The output of each head of a layer, z W_O. The outputs sum to attn_out less b_O."""
    check_layer(model, layer, mid=True)
    z, W_O = check_run(model, cache)["z", layer], model.blocks[layer].attn.W_O
    return einsum(z, W_O, "batch pos head d_head, head d_head d -> batch pos head d")


def stream(model: GPT, cache: Cache, layer: int | None = None, *, mid: bool = False) -> Stream:
    """The residual stream before block `layer`, or by default the final stream. With `mid`: between
    the heads and the MLP of the block. ValueError for `mid` in a model of parallel blocks."""
    if mid and model.cfg.parallel_attn_mlp:
        raise ValueError("there is no stream at mid: in a parallel block heads and MLP both read "
                         "the stream before the block")  # fmt: skip
    place, same = check_layer(model, layer, mid), check_run(model, cache)
    if place < model.cfg.n_layers:
        return _finite(model, same["resid_mid" if mid else "resid_pre", place])
    if place:
        return _finite(model, same["resid_post", place - 1])
    return _finite(model, torch.stack(list(entry_terms(model, same).values())).sum(0))


def through_norm(
    model: GPT, cache: Cache, streams: Streams, layer: int | None = None, *, mid: bool = False
) -> Streams:
    """Parts of the stream behind the norm of block `layer`, or by default behind the final norm.
    With `mid`: behind the norm of the block's MLP.

    (x - mean) / scale * w, with the scale of the run at this place, and without the norm's bias. It
    is linear, so the parts of a sum stay parts of the sum.
    """
    place = check_layer(model, layer, mid)
    norm = _norm(model, place, mid)
    if not isinstance(norm, Norm):
        return streams
    at = ("scale", place, "ln2" if mid else "ln1") if place < model.cfg.n_layers else "scale"
    centred = streams - streams.mean(-1, keepdim=True) if norm.centred else streams
    scaled = centred / check_run(model, cache)[at]
    return scaled if norm.w is None else scaled * norm.w


def logits_at(
    model: GPT, resid: Stream, at: int | Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch *pos d_vocab"]:
    """The logits of the final stream at the position `at`: one for all examples, or one for each.
    If `at` is None, at all positions. Other positions are not unembedded. ValueError for a position
    outside of the stream."""
    if at is None:
        return model.unembed(model.ln_final(resid))
    where = check_positions(at, resid[..., 0])
    rows = resid[torch.arange(len(resid), device=resid.device), where]
    return model.unembed(model.ln_final(rows[:, None]))[:, 0]


def check_positions(
    at: int | Int[Tensor, " batch"], of: Shaped[Tensor, "batch pos"]
) -> Int[Tensor, " batch"]:
    """The position `at` of each example of a run, from 0. Negative positions count from the end.
    ValueError for a position outside of the run."""
    batch, n = of.shape
    where = torch.as_tensor(at, device=of.device).expand(batch)
    if not ((where >= -n) & (where < n)).all():
        raise ValueError(f"at={at} is outside of {n} positions")
    return where % n


def norm_bias(
    model: GPT, layer: int | None = None, *, mid: bool = False
) -> Float[Tensor, " d_model"]:
    """The bias b of the norm at a place (see `through_norm`), or 0 if it has none."""
    norm = _norm(model, check_layer(model, layer, mid), mid)
    b = norm.b if isinstance(norm, Norm) else None
    return model.W_E.new_zeros(model.cfg.d_model) if b is None else b


def writes(
    model: GPT, cache: Cache, layer: int, mid: bool = False, by: str = "head"
) -> Iterator[Labelled]:
    """The labels and values of the components that write before a place (see residual.components).
    They come layer by layer, so that few are in memory at a time."""
    first = entry_terms(model, cache)
    yield list(first), torch.stack(list(first.values()))
    for before in range(layer):
        yield from _attention_writes(model, cache, before, by)
        yield from _mlp_writes(model, cache, before, by)
    if mid:
        yield from _attention_writes(model, cache, layer, by)


def _attention_writes(model: GPT, cache: Cache, layer: int, by: str) -> Iterator[Labelled]:
    if by == "layer":
        yield [f"L{layer} attn"], cache["attn_out", layer][None]
        return
    results, b_O = head_results(model, cache, layer).movedim(2, 0), model.blocks[layer].attn.b_O
    yield [str(Head(layer, head)) for head in range(model.cfg.n_heads)], results
    if b_O is not None:
        yield [f"L{layer} b_O"], b_O.expand_as(results[:1])


def _mlp_writes(model: GPT, cache: Cache, layer: int, by: str) -> Iterator[Labelled]:
    mlp = model.blocks[layer].mlp
    if mlp is None:
        return
    if by == "layer":
        yield [f"L{layer} mlp"], cache["mlp_out", layer][None]
        return
    written = (cache["post", layer] @ mlp.W_out)[None]
    yield [f"MLP{layer}"], written
    if mlp.b_out is not None:
        yield [f"L{layer} b_out"], mlp.b_out.expand_as(written)


def whole_pattern(model: GPT, cache: Cache, layer: int) -> Float[Tensor, "batch head dest src"]:
    """The patterns of a layer. ValueError if the run kept only some positions."""
    pattern = check_run(model, cache)["pattern", layer]
    if pattern.shape[-2] != pattern.shape[-1]:
        raise ValueError(
            f"the run kept some positions only, {list(pattern.shape)}: paths need all of them, run "
            f"without pos_slice"
        )
    return pattern


def entry_terms(model: GPT, cache: Cache) -> dict[str, Stream]:
    """The terms of the stream before block 0, by name: embed, and pos if it enters the stream."""
    pos = {"pos": cache["pos_embed"]} if model.cfg.positions_in_stream else {}
    return {"embed": cache["embed"], **pos}


def check_layer(model: GPT, layer: int | None, mid: bool) -> int:
    """The layer, from 0 to n_layers. ValueError for a place that does not exist."""
    n = model.cfg.n_layers
    place = n if layer is None else layer + n if layer < 0 else layer
    if not 0 <= place <= n or (mid and place == n):
        where = f"layer {layer}{' mid' if mid else ''}"
        raise ValueError(f"there is no {where}: the model has {n} layers, counted from 0")
    return place


def _norm(model: GPT, layer: int, mid: bool) -> nn.Module:
    if layer == model.cfg.n_layers:
        return model.ln_final
    block = model.blocks[layer]
    if mid and block.mlp is None:
        raise ValueError("nothing reads the stream at mid: the model is attention-only")
    return block.ln2 if mid else block.ln1


def _finite(model: GPT, values: Stream) -> Stream:
    if not values.sum(dtype=torch.promote_types(values.dtype, torch.float32)).isfinite():
        bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
        raise ValueError(f"the stream holds numbers that are not finite; so do the weights {bad}")
    return values
