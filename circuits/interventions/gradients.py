"""Slopes: the gradient of a metric at every activation of a run, by one backward pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.decomposition import logits_at
from circuits.hooks import HookFn, HookPoint
from circuits.interventions.sweeps import Metric, judged
from circuits.model import GPT


def slopes(
    model: GPT,
    tokens: Int[Tensor, "batch pos"],
    names: Sequence[str],
    metric: Metric,
    at: int | Int[Tensor, " batch"] | None = -1,
    hooks: Sequence[tuple[str, HookFn]] = (),
) -> dict[str, Tensor]:
    """d metric / d activation at some hook points, by full name, in the shape of the activation. It
    is the slope of each example's own metric, or of the batch's metric.

    `metric` gets the logits [batch d_vocab] of the position `at`, or of all positions with None.
    `hooks` are attached for this run, before the slopes are taken. Gradients of weights are not
    touched, and the function works inside torch.no_grad too.
    """
    probes: dict[str, Tensor] = {}

    def probe(activation: Tensor, hook: HookPoint) -> Tensor:
        probes[hook.name] = torch.zeros_like(activation).requires_grad_()
        return activation + probes[hook.name]

    probing: list[tuple[str, HookFn]] = [(name, probe) for name in names]
    with torch.enable_grad(), model.for_one_run([*hooks, *probing]):
        resid = model(tokens, stop_at_layer=model.cfg.n_layers)
        total = judged(metric, logits_at(model, resid, at)).sum()
        found = torch.autograd.grad(total, [probes[name] for name in names])
    return dict(zip(names, found, strict=True))
