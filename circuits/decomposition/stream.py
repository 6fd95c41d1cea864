"""The residual stream of one run: what is in it where, who wrote it, and how norms hand it on.

Places. "Before block `layer`" is where its heads read; `mid` is between its heads and its MLP; with
layer None or n_layers it is the final stream, which the unembedding reads. Negative layers count
from the last block, so -1 is where that block reads.
"""

from collections.abc import Iterator

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.hooks import Cache
from circuits.model import GPT, Head, Norm

Stream = Float[Tensor, "batch pos d_model"]
Streams = Float[Tensor, "*lead batch pos d_model"]


def same_run(model: GPT, cache: Cache, tokens: Int[Tensor, "batch pos"] | None = None) -> Cache:
    """The cache; ValueError if it is of another model's run, of other tokens, or has no batch."""
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
            raise ValueError(f"the cache is of a run on other tokens, {list(kept.shape)}, than "
                             f"these, {list(tokens.shape)}")  # fmt: skip
    return cache


def head_results(model: GPT, cache: Cache, layer: int) -> Float[Tensor, "batch pos head d_model"]:
    """What each head of a layer writes to the stream: z W_O. They sum to attn_out less b_O."""
    checked_layer(model, layer, True)
    z, W_O = same_run(model, cache)["z", layer], model.blocks[layer].attn.W_O
    return einsum(z, W_O, "batch pos head d_head, head d_head d -> batch pos head d")


def stream(model: GPT, cache: Cache, layer: int | None = None, *, mid: bool = False) -> Stream:
    """The residual stream before block `layer`, by default the final one; `mid`: between the heads
    and the MLP of that block."""
    place, same = checked_layer(model, layer, mid), same_run(model, cache)
    if place < model.cfg.n_layers:
        return _finite(model, same["resid_mid" if mid else "resid_pre", place])
    if place:
        return _finite(model, same["resid_post", place - 1])
    return _finite(model, torch.stack(list(entering(model, same).values())).sum(0))


def through_norm(
    model: GPT, cache: Cache, streams: Streams, layer: int | None = None, *, mid: bool = False
) -> Streams:
    """Parts of the stream as block `layer` reads them (by default, as the unembedding does), with
    the scale frozen that the run had just there; `mid`: as the MLP of that block reads.

    (x - mean) / scale * w, without the norm's bias, so that parts of a sum stay parts of it.
    """
    place = checked_layer(model, layer, mid)
    norm = _norm(model, place, mid)
    if not isinstance(norm, Norm):
        return streams
    at = ("scale", place, "ln2" if mid else "ln1") if place < model.cfg.n_layers else "scale"
    centred = streams - streams.mean(-1, keepdim=True) if norm.centred else streams
    scaled = centred / same_run(model, cache)[at]
    return scaled if norm.w is None else scaled * norm.w


def logits_at(
    model: GPT, resid: Stream, at: int | Int[Tensor, " batch"] | None
) -> Float[Tensor, "batch *pos d_vocab"]:
    """The logits of the final stream at one position, the same in all examples or one in each; with
    None at all positions. Only the positions that are asked for are unembedded. ValueError for a
    position outside of the stream."""
    if at is None:
        return model.unembed(model.ln_final(resid))
    batch, n = resid.shape[:2]
    where = torch.as_tensor(at, device=resid.device).expand(batch)
    if not ((where >= -n) & (where < n)).all():
        raise ValueError(f"at={at} is outside of {n} positions")
    rows = resid[torch.arange(batch, device=resid.device), where]
    return model.unembed(model.ln_final(rows[:, None]))[:, 0]


def norm_bias(
    model: GPT, layer: int | None = None, *, mid: bool = False
) -> Float[Tensor, " d_model"]:
    """What that norm adds to whatever passes: its b, or 0 where it has none."""
    norm = _norm(model, checked_layer(model, layer, mid), mid)
    b = norm.b if isinstance(norm, Norm) else None
    return model.W_E.new_zeros(model.cfg.d_model) if b is None else b


def writes(
    model: GPT, cache: Cache, layer: int, mid: bool = False, by: str = "head"
) -> Iterator[tuple[list[str], Float[Tensor, "component batch pos d_model"]]]:
    """Labels and values of what was written before a place (see residual.components), a layer at a
    time, so that few are held at once."""
    first = entering(model, cache)
    yield list(first), torch.stack(list(first.values()))
    for at in range(layer + mid):
        attn, last = model.blocks[at].attn, mid and at == layer
        if by == "layer":
            yield [f"L{at} attn"], cache["attn_out", at][None]
        else:
            results = head_results(model, cache, at).movedim(2, 0)
            yield [str(Head(at, head)) for head in range(model.cfg.n_heads)], results
            if attn.b_O is not None:
                yield [f"L{at} b_O"], attn.b_O.expand_as(results[:1])
        mlp = model.blocks[at].mlp
        if mlp is None or last:
            continue
        if by == "layer":
            yield [f"L{at} mlp"], cache["mlp_out", at][None]
        else:
            written = cache["post", at] @ mlp.W_out
            yield [f"MLP{at}"], written[None]
            if mlp.b_out is not None:
                yield [f"L{at} b_out"], mlp.b_out.expand_as(written[None])


def whole_pattern(model: GPT, cache: Cache, layer: int) -> Float[Tensor, "batch head dest src"]:
    """The patterns of a layer; ValueError if the run kept them for some positions only."""
    pattern = same_run(model, cache)["pattern", layer]
    if pattern.shape[-2] != pattern.shape[-1]:
        raise ValueError(f"the run kept some positions only, {list(pattern.shape)}: paths need all "
                         f"of them, run without pos_slice")  # fmt: skip
    return pattern


def entering(model: GPT, cache: Cache) -> dict[str, Stream]:
    """What is in the stream before block 0, by name: embed, and pos unless it is shortformer's."""
    pos = {"pos": cache["pos_embed"]} if model.cfg.positions_in_stream else {}
    return {"embed": cache["embed"], **pos}


def checked_layer(model: GPT, layer: int | None, mid: bool) -> int:
    """The layer from 0 to n_layers; ValueError in words for a place that does not exist."""
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
