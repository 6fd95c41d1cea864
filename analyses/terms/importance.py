"""Which terms of the path expansion the loss rests on: by how many heads they pass, by layer, and
path by path.

The order-n algorithm of the framework paper, for any depth: a first run saves the patterns; in all
others they are forced. Run 0 replaces what every layer's heads write by nothing and saves what it
would have been; run n replaces it by what run n - 1 saved, and so has all terms that pass n heads
or fewer. (Elhage et al. 2021, "Term importance analysis",
https://transformer-circuits.pub/2021/framework/index.html)

For attention-only models: with MLPs, which are not linear, no number of heads is the end.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, concat

from circuits import paths
from circuits.decomposition import read_by_end, same_run, source, starts, through_heads
from circuits.hooks import Cache, HookPoint
from circuits.model import GPT, AnyPath, check_predicts, checked_tokens, components, token_loss

Tokens = Int[Tensor, "*batch pos"]
Logits = Float[Tensor, "batch pos d_vocab"]
Metric = Callable[[Logits, Tokens], Float[Tensor, ""]]
Written = Mapping[str, Float[Tensor, "batch pos d_model"]]
"What the heads of each layer write, by hook name."


def loss(logits: Logits, tokens: Tokens) -> Float[Tensor, ""]:
    """Mean next-token loss in nats: the default metric."""
    return token_loss(logits, tokens).mean()


def _next_tokens(model: GPT, tokens: Tokens, metric: Metric = loss) -> Int[Tensor, "batch pos"]:
    if metric is loss:
        check_predicts(model.cfg, "the next-token loss")
    return checked_tokens(tokens, model.cfg)


def by_order(model: GPT, tokens: Tokens) -> DataArray:
    """Loss in nats of all terms that pass at most n heads, (order), from 0 to n_layers; the last is
    the model's own.

    Coordinates: `terms`, how many paths pass exactly n heads, and `saved`, the nats that they take
    off (order 0: off the uniform guess ln d_vocab, in attrs["uniform"]). Norms take their scale
    anew in each run, as in the paper; `frozen_by_order` keeps the scales too. Biases of the heads
    count with the heads. ValueError for a model with MLPs.
    """
    tokens = _next_tokens(model, tokens)
    forced, losses, written = _patterns(model, tokens), [], {}
    for _ in range(model.cfg.n_layers + 1):
        run, written = _run(model, tokens, forced, written)
        losses.append(run)
    return _orders(model, losses, "norms rescaled in each run")


def frozen_by_order(model: GPT, tokens: Tokens, cache: Cache | None = None) -> DataArray:
    """`by_order` with the scales of all norms frozen too, so that terms are the paths of
    circuits.decomposition.paths and add up linearly; biases count as order 0.

    `cache` is a run on these tokens, if there is one. ValueError for a cache of other tokens or of
    another model, and for a model with MLPs.
    """
    _require_attention_only(model)
    tokens = _next_tokens(model, tokens)
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1] if cache is None else cache
        orders = paths.grouped(model, same_run(model, cache, tokens), "order")
        losses = [float(loss(logits, tokens)) for logits in orders.stack.cumsum(0)]
    return _orders(model, losses, "norms frozen")


def without_order(model: GPT, tokens: Tokens) -> DataArray:
    """The rise of the loss in nats when the terms of one order are left out, (order); patterns and
    norms are frozen. `by_order` adds orders one by one and rescales the norms in each run, so that
    an order it adds first can look large even if the model does not need it."""
    _require_attention_only(model)
    tokens = _next_tokens(model, tokens)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        orders = paths.grouped(model, cache, "order")
        whole = float(loss(logits, tokens))
        rise = [float(loss(logits - terms, tokens)) - whole for terms in orders.stack]
    words = "rise of the loss without the terms of an order"
    attrs = {"units": "nats", "long_name": words, "loss": whole}
    return DataArray(rise, {"order": range(len(rise))}, "order", "without_order", attrs)


def without_embedding(model: GPT, tokens: Tokens) -> float:
    """The rise of the loss in nats when the embedding is taken out of the final residual stream,
    and the final norm takes its scale anew. A value near 0 means that the direct path is dead."""
    tokens = _next_tokens(model, tokens)
    with torch.no_grad():
        final, cache = model.run_with_cache(
            tokens, stop_at_layer=model.cfg.n_layers, names_filter="hook_embed"
        )
        streams = (final, final - cache["embed"])
        whole, without = (loss(model.unembed(model.ln_final(x)), tokens) for x in streams)
    return float(without - whole)


def by_example(measure: Callable[[GPT, Tokens], DataArray], model: GPT, tokens: Tokens
               ) -> DataArray:  # fmt: skip
    """`by_order`, `without_order` or `by_layer` of each row of tokens alone, (example, ...), for
    means and errors over examples."""
    rows = _next_tokens(model, tokens)
    return concat([measure(model, row[None]) for row in rows], "example")


def by_layer(model: GPT, tokens: Tokens) -> DataArray:
    """Nats that the heads of a layer save on their own, over the direct path alone, and given those
    of all other layers: (layer, given), given being "direct path" and "other layers".

    Terms of order 0 and 1 only, the paper's split of individual heads: what each head makes of the
    embedding. ValueError for a model with MLPs.
    """
    tokens = _next_tokens(model, tokens)
    forced = _patterns(model, tokens)
    direct, alone = _run(model, tokens, forced, {})
    layers = list(alone)

    def nats(kept: Sequence[str]) -> float:
        return _run(model, tokens, forced, {name: alone[name] for name in kept})[0]

    whole = nats(layers)
    saved = [(direct - nats([one]), nats([name for name in layers if name != one]) - whole)
             for one in layers]  # fmt: skip
    return DataArray(
        np.array(saved).reshape(len(layers), 2),
        dims=("layer", "given"),
        coords={"layer": range(len(layers)), "given": ["direct path", "other layers"]},
        name="saved",
        attrs={"units": "nats", "long_name": "loss saved by the heads of a layer"},
    )


def of_paths(
    model: GPT, tokens: Tokens, chosen: Sequence[AnyPath], metric: Metric = loss
) -> DataArray:
    """What the metric is without a path less what it is, (path), for each path alone: by default
    the nats that the path saves. Patterns and norms are frozen; works with MLPs too."""
    tokens = _next_tokens(model, tokens, metric)
    chosen = [paths.path(model, one) for one in chosen]
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        own = metric(logits, tokens)
        terms = (paths.logits(model, cache, path) for path in chosen)
        saved = [float(metric(logits - term, tokens) - own) for term in terms]
    return DataArray(
        np.array(saved, dtype=float),
        dims=("path",),
        coords={"path": [str(path) for path in chosen],
                "order": ("path", [path.order for path in chosen])},
        name="saved",
        attrs={"long_name": "rise of the metric without the path", "metric": float(own)},
    )  # fmt: skip


def of_virtual_heads(model: GPT, tokens: Tokens, metric: Metric = loss) -> DataArray:
    """What the metric is without a virtual head less what it is, (writer, reader): without the
    paths, from anywhere, that pass just these two heads. NaN where the writer's layer is not the
    earlier one. Patterns and norms are frozen; works with MLPs too."""
    heads = components.every_head(model.cfg)
    values = np.full((len(heads), len(heads)), np.nan)
    tokens = _next_tokens(model, tokens, metric)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        own = metric(logits, tokens)
        for i, writer in enumerate(heads):
            depth = components.depth(model.cfg, str(writer))
            begin = [name for name, at in starts(model, "logits").items() if at < depth]
            read = torch.stack([source(model, cache, name) for name in begin]).sum(0)
            written = through_heads(model, cache, read, [writer])
            for j, reader in enumerate(heads):
                if writer.layer < reader.layer:
                    moved = through_heads(model, cache, written, [reader])
                    term = read_by_end(model, cache, moved, "logits")
                    values[i, j] = float(metric(logits - term, tokens) - own)
    labels = [str(head) for head in heads]
    return DataArray(
        values,
        dims=("writer", "reader"),
        coords={"writer": labels, "reader": labels},
        name="saved",
        attrs={"long_name": "rise of the metric without the virtual head", "metric": float(own)},
    )


def _patterns(model: GPT, tokens: Tokens) -> Cache:
    """The patterns of the model's own run, of an attention-only model."""
    _require_attention_only(model)
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=lambda name: name.endswith("pattern"))[1]


def _run(model: GPT, tokens: Tokens, forced: Cache, written: Written) -> tuple[float, Written]:
    """The loss in nats with patterns forced and the heads of each layer writing `written`, or
    nothing where that is silent; and what they would have written."""
    kept: dict[str, Tensor] = {}

    def force(pattern: Tensor, hook: HookPoint) -> Tensor:
        return forced[hook.name]

    def replace(attn_out: Tensor, hook: HookPoint) -> Tensor:
        kept[hook.name] = attn_out
        return written.get(hook.name, torch.zeros_like(attn_out))

    places = [(".hook_pattern", force), (".hook_attn_out", replace)] if model.cfg.n_layers else []
    hooks = [(f"blocks.*{name}", fn) for name, fn in places]
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks)
    return float(loss(logits, tokens)), kept


def _orders(model: GPT, losses: list[float], norms: str) -> DataArray:
    n_layers, n_heads, uniform = model.cfg.n_layers, model.cfg.n_heads, math.log(model.cfg.d_vocab)
    orders = range(n_layers + 1)
    return DataArray(
        losses,
        dims=("order",),
        coords={
            "order": orders,
            "terms": ("order", [math.comb(n_layers, n) * n_heads**n for n in orders]),
            "saved": ("order", -np.diff([uniform, *losses])),
        },
        name="loss",
        attrs={"units": "nats", "long_name": f"loss of terms up to an order, {norms}",
               "uniform": uniform},
    )  # fmt: skip


def _require_attention_only(model: GPT) -> None:
    if not model.cfg.attn_only:
        raise ValueError(
            f"orders count heads in attention-only models, and this one has MLPs "
            f"(d_mlp={model.cfg.d_mlp}): see circuits.paths, where what an MLP writes is a start"
        )
