"""Slopes: the gradient of a metric at every activation of a run, by one backward pass."""

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.decomposition import logits_at
from circuits.hooks import HookFn, HookPoint
from circuits.interventions.sweeps import Metric, evaluate_metric
from circuits.model import GPT


def slopes(
    model: GPT,
    tokens: Int[Tensor, "batch pos"],
    names: Sequence[str],
    metric: Metric,
    at: int | Int[Tensor, " batch"] | None = -1,
    hooks: Sequence[tuple[str, HookFn]] = (),
) -> dict[str, Tensor]:
    """d metric / d activation at some hook points, by full name, each in the shape of the
    activation. A metric of each example gives slopes of each example; a metric of the batch gives
    its slope.

    `metric` gets the logits [batch d_vocab] of the position `at`, or of all positions if `at` is
    None. `hooks` are active in this run, and see the activations first. Gradients of weights do not
    change. The function also works inside torch.no_grad.
    """
    probes: dict[str, Tensor] = {}

    def probe(activation: Tensor, hook: HookPoint) -> Tensor:
        probes[hook.name] = torch.zeros_like(activation).requires_grad_()
        return activation + probes[hook.name]

    probing: list[tuple[str, HookFn]] = [(name, probe) for name in names]
    with torch.enable_grad(), model.for_one_run([*hooks, *probing]):
        resid = model(tokens, stop_at_layer=model.cfg.n_layers)
        total = evaluate_metric(metric, logits_at(model, resid, at)).sum()
        found = torch.autograd.grad(total, [probes[name] for name in names])
    return dict(zip(names, found, strict=True))
