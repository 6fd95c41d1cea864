"""The loss that terms of the path expansion save: by the number of heads that they pass, by layer,
and path by path.

This is the order-n algorithm of the framework paper, for any depth. A first run saves the patterns;
all other runs are forced to have them. In run 0 the heads of every layer write zero, and the
outputs that they would have written are saved. In run n they write the outputs that run n - 1
saved. So run n has all terms that pass n heads or fewer. (Elhage et al. 2021, "Term importance
analysis", https://transformer-circuits.pub/2021/framework/index.html)

The algorithm is for attention-only models: MLPs are not linear, so the orders do not end.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray, Dataset, concat

from analyses.labelled import to_numpy
from circuits import paths, residual
from circuits.decomposition import check_run, end_input, start_term, starts, through_heads
from circuits.hooks import Cache, HookPoint
from circuits.interventions import Metric, evaluate_metric
from circuits.model import GPT, AnyPath, check_predicts, checked_tokens, components, token_loss

Tokens = Int[Tensor, "*batch pos"]
Logits = Float[Tensor, "batch pos d_vocab"]
Written = Mapping[str, Float[Tensor, "batch pos d_model"]]
"The output of the heads of each layer, by hook name."


def loss(logits: Logits, tokens: Tokens) -> Float[Tensor, ""]:
    """Mean next-token loss in nats: the default metric."""
    return token_loss(logits, tokens).mean()


def _next_tokens(model: GPT, tokens: Tokens) -> Int[Tensor, "batch pos"]:
    check_predicts(model.cfg, "the next-token loss")
    return checked_tokens(tokens, model.cfg)


def _measured(
    model: GPT, tokens: Tokens, metric: Metric | None
) -> tuple[Int[Tensor, "batch pos"], Callable[[Logits], float]]:
    """The tokens, checked, and the mean of the metric over them: by default of the loss."""
    if metric is None:
        rows = _next_tokens(model, tokens)
        return rows, lambda logits: float(loss(logits, rows))
    rows = checked_tokens(tokens, model.cfg)
    return rows, lambda logits: float(evaluate_metric(metric, logits).mean())


def by_order(model: GPT, tokens: Tokens) -> DataArray:
    """Loss in nats of all terms that pass at most n heads, (order), from 0 to n_layers. The last
    loss is the loss of the model.

    The coordinate `terms` is the number of paths that pass exactly n heads. `saved` is the loss in
    nats that these terms save; order 0 is compared with the uniform guess ln d_vocab, in
    attrs["uniform"]. Norms compute their scale in each run, as in the paper; `frozen_by_order`
    keeps the scales of the model's run. Biases of the heads count with the heads. ValueError for a
    model with MLPs.
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
        orders = paths.groups(model, check_run(model, cache, tokens), "order")
        losses = [float(loss(logits, tokens)) for logits in orders.stack.cumsum(0)]
    return _orders(model, losses, "norms frozen")


def without_order(model: GPT, tokens: Tokens) -> DataArray:
    """The rise of the loss in nats without the terms of one order, (order). Patterns and norms are
    frozen. `by_order` adds orders one by one and rescales the norms in each run, so an early order
    can look large there even if the model does not need it."""
    _require_attention_only(model)
    tokens = _next_tokens(model, tokens)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        orders = paths.groups(model, cache, "order")
        whole = float(loss(logits, tokens))
        rise = [float(loss(logits - terms, tokens)) - whole for terms in orders.stack]
    words = "rise of the loss without the terms of an order"
    attrs = {"units": "nats", "long_name": words, "loss": whole}
    return DataArray(rise, {"order": range(len(rise))}, "order", "without_order", attrs)


def without_component(model: GPT, tokens: Tokens) -> Dataset:
    """What the final residual stream is made of: for the embedding and for the heads and the MLP of
    each layer, (component), the mean `norm` of the component's vector, and the `rise` of the loss
    in nats without it in the final stream. The final norm computes its scale again.

    A rise near 0 means that the component has no direct effect: what it writes is not used, or
    another component writes it too. The first position, where BOS is, is left out of the norms.
    attrs["loss"] is the loss of the model.
    """
    tokens = _next_tokens(model, tokens)
    with torch.no_grad():
        parts = residual.components(model, model.run_with_cache(tokens)[1], by="layer")
        whole = float(loss(model.unembed(model.ln_final(parts.whole)), tokens))
        rise = [
            float(loss(model.unembed(model.ln_final(parts.whole - part)), tokens)) - whole
            for part in parts.stack
        ]
    norm = parts.stack[:, :, 1:].norm(dim=-1).mean((1, 2))
    return Dataset(
        {
            "rise": ("component", rise, {"units": "nats"}),
            "norm": ("component", to_numpy(norm)),
        },
        coords={"component": list(parts.labels)},
        attrs={"loss": whole},
    )


def by_example(measure: Callable[[GPT, Tokens], DataArray], model: GPT, tokens: Tokens
               ) -> DataArray:  # fmt: skip
    """`by_order`, `without_order` or `by_layer` of each row of tokens alone, (example, ...), for
    means and errors over examples."""
    rows = _next_tokens(model, tokens)
    return concat([measure(model, row[None]) for row in rows], "example")


def by_layer(model: GPT, tokens: Tokens) -> DataArray:
    """The loss in nats that the heads of a layer save, (layer, given): "direct path" if only the
    direct path is given, and "other layers" if the heads of all other layers are given too.

    Only terms of order 0 and 1 count, as in the paper's split of individual heads: each head reads
    the embedding. ValueError for a model with MLPs.
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
    model: GPT, tokens: Tokens, chosen: Sequence[AnyPath], metric: Metric | None = None
) -> DataArray:
    """The metric without a path less the metric of the model, (path). By default it is the
    next-token loss: the nats that the path saves. Patterns and norms are frozen. The model may have
    MLPs."""
    tokens, value = _measured(model, tokens, metric)
    chosen = [paths.path(model, one) for one in chosen]
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        own = value(logits)
        terms = (paths.logits(model, cache, path) for path in chosen)
        saved = [value(logits - term) - own for term in terms]
    return DataArray(
        np.array(saved, dtype=float),
        dims=("path",),
        coords={"path": [str(path) for path in chosen],
                "order": ("path", [path.order for path in chosen])},
        name="saved",
        attrs={"long_name": "rise of the metric without the path", "metric": own},
    )  # fmt: skip


def of_virtual_heads(model: GPT, tokens: Tokens, metric: Metric | None = None) -> DataArray:
    """The metric without a virtual head less the metric of the model, (writer, reader): without all
    paths that pass exactly these two heads. NaN where the writer's layer is not before the reader's
    layer. All else is as in `of_paths`."""
    heads = components.every_head(model.cfg)
    values = np.full((len(heads), len(heads)), np.nan)
    tokens, value = _measured(model, tokens, metric)
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens)
        own = value(logits)
        for i, writer in enumerate(heads):
            depth = components.depth(model.cfg, str(writer))
            begin = [name for name, at in starts(model, "logits").items() if at < depth]
            read = torch.stack([start_term(model, cache, name) for name in begin]).sum(0)
            written = through_heads(model, cache, read, [writer])
            for j, reader in enumerate(heads):
                if writer.layer < reader.layer:
                    moved = through_heads(model, cache, written, [reader])
                    term = end_input(model, cache, moved, "logits")
                    values[i, j] = value(logits - term) - own
    labels = [str(head) for head in heads]
    return DataArray(
        values,
        dims=("writer", "reader"),
        coords={"writer": labels, "reader": labels},
        name="saved",
        attrs={"long_name": "rise of the metric without the virtual head", "metric": own},
    )


def _patterns(model: GPT, tokens: Tokens) -> Cache:
    """The patterns of the model's own run, of an attention-only model."""
    _require_attention_only(model)
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=lambda name: name.endswith("pattern"))[1]


def _run(model: GPT, tokens: Tokens, forced: Cache, written: Written) -> tuple[float, Written]:
    """The loss in nats of a run with forced patterns, in which the heads of each layer write
    `written`, or zero if `written` lacks the layer; and the outputs that they would have
    written."""
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
            f"(d_mlp={model.cfg.d_mlp}): see circuits.paths, where an MLP is a start of paths"
        )
