"""What a head is worth: the loss of a model in which it writes nothing.

Full ablation lets what comes after it go where it will; pattern-preserving ablation holds every
pattern at what it was, so that only what the head itself moved to the logits is lost. In an
attention-only model with frozen norms that is the sum of all paths through it. On a previous-token
head the two give opposite verdicts. (Olsson et al. 2022, "Ablations",
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses.labelled import per_head
from circuits.hooks import HookPoint
from circuits.model import GPT
from circuits.tokens import checked_tokens

KINDS = ("full", "pattern-preserving")
AT_ONCE = 2**21
"How many entries of one layer's patterns are held in memory at a time."
Rows = Int[Tensor, "batch pos"]


def losses(
    model: GPT, rows: Rows, example: Int[Tensor, "token"], index: Int[Tensor, "token"]
) -> tuple[Float[Tensor, "token"], Float[Tensor, "layer head ablation token"]]:
    """Loss in nats of tokens rows[example, index + 1], of the model and of it without each head.

    `ablation` is as in KINDS. Rows go through a few at a time, only the tokens asked for are
    unembedded, and what lies before a head is run once for all. Both are on the CPU.
    """
    cfg, device = model.cfg, model.W_E.device
    whole = torch.empty(len(example))
    without = torch.empty(cfg.n_layers, cfg.n_heads, len(KINDS), len(example))
    few = max(1, AT_ONCE // (cfg.n_heads * rows.shape[1] ** 2))
    with torch.no_grad():
        for first in range(0, len(rows), few):
            here = (example >= first) & (example < first + few)
            if here.any():
                part = rows[first : first + few].to(device)
                at = ((example[here] - first).to(device), index[here].to(device))
                whole[here], without[..., here] = _losses(model, part, at)
    return whole, without


def of_heads(model: GPT, tokens: Rows) -> DataArray:
    """Rise of the mean loss, in nats, when a head writes nothing: (layer, head, ablation).

    attrs["loss"] is the loss of the model as it is. A head whose full ablation costs much and whose
    pattern-preserving ablation costs nothing works through what later heads attend to.
    """
    tokens = checked_tokens(tokens, model.cfg)
    places = torch.ones_like(tokens[:, 1:], device="cpu").nonzero()
    whole, without = losses(model, tokens, *places.unbind(-1))
    rise = without.double().mean(-1) - whole.double().mean()
    words = "rise of the loss without the head"
    named = per_head(rise, "ablation", "ablation", units="nats", long_name=words)
    return named.assign_coords(ablation=list(KINDS)).assign_attrs(loss=float(whole.mean()))


def _losses(
    model: GPT, rows: Rows, at: tuple[Int[Tensor, "token"], Int[Tensor, "token"]]
) -> tuple[Float[Tensor, "token"], Float[Tensor, "layer head ablation token"]]:
    n_layers, n_heads = model.cfg.n_layers, model.cfg.n_heads
    targets = rows[:, 1:][at].long()
    resid, cache = model.run_with_cache(
        rows[:, :-1],
        stop_at_layer=n_layers,
        names_filter=lambda name: name.endswith(("hook_pattern", "hook_resid_pre")),
    )

    def loss(resid: Tensor) -> Tensor:
        logits = model.unembed(model.ln_final(resid[at][None]))[0]
        return F.cross_entropy(logits.float(), targets, reduction="none").cpu()

    def force(pattern: Tensor, hook: HookPoint) -> Tensor:
        return cache[hook.name]

    def without(layer: int, head: int, forced: Iterable[int]) -> Tensor:
        def silence(z: Tensor, hook: HookPoint) -> None:
            z[:, :, head] = 0

        hooks: list[Any] = [(f"blocks.{layer}.attn.hook_z", silence)]
        hooks += [(f"blocks.{later}.attn.hook_pattern", force) for later in forced]
        with model.hooks(fwd_hooks=hooks):
            begun = cache["resid_pre", layer]
            return loss(model(begun, start_at_layer=layer, stop_at_layer=n_layers))

    ablated = torch.empty(n_layers, n_heads, len(KINDS), len(targets))
    for layer in range(n_layers):
        later = range(layer + 1, n_layers)
        for head in range(n_heads):
            ablated[layer, head] = without(layer, head, forced=())  # both, if nothing is later
            if later:
                ablated[layer, head, 1] = without(layer, head, forced=later)
    return loss(resid), ablated
