"""One training loop: Muon on the matrices inside the blocks, AdamW on the rest.

A step reads a batch, takes the next-token loss at every position, clips the gradient, and moves
along a warm-up and a cosine. Batches are a function of the step and the seed, so a recipe
and its data give the same model on the same machine again.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.data import Batches
from circuits.model import GPT

Record = dict[str, int | float]
"What is known at one step: step, tokens, loss (nats), and what `evaluate` measured."


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train. ValueError for numbers that make no sense."""

    steps: int
    batch_size: int
    lr: float = 2e-3
    "Of AdamW, for embeddings, unembedding, norms and biases."
    muon_lr: float = 0.01
    "Of Muon, for W_Q, W_K, W_V, W_O, W_in, W_out; it is the spectral size of a step. 0: AdamW."
    warmup: int = 100
    final: float = 0.05
    "Share of the learning rate that the cosine ends on."
    clip: float = 1.0
    "Largest norm of the gradient of all parameters together."
    evaluate_every: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name in _MAY_BE_ZERO else 1e-12
            if not isinstance(value, int | float) or value < least:
                raise ValueError(f"{field.name} must be a number above 0, got {value!r}")

    def schedule(self, step: int) -> float:
        """Share of the learning rate at a step: linear warm-up, then a cosine to `final`."""
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.steps))
        return min(1.0, (step + 1) / max(1, self.warmup)) * (self.final + (1 - self.final) * cosine)


_MAY_BE_ZERO = {"muon_lr", "warmup", "final"}


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal, one matrix at a time along the last two dims.

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). torch.optim.Muon takes only 2-D
    parameters and works in bfloat16, which a processor without it does 200 times slower (2.1 s a
    step at d_model 256 against 10 ms); here each head's [d_model d_head] matrix is a matrix of its
    own, and the arithmetic is that of the parameters.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
                buffer.lerp_(param.grad, 1 - group["momentum"])
                nesterov = param.grad.lerp(buffer, group["momentum"])
                param.sub_(orthogonalised(nesterov), alpha=group["lr"])


def orthogonalised(
    matrix: Float[Tensor, "*lead rows columns"],
) -> Float[Tensor, "*lead rows columns"]:
    """U V^T of the SVD U S V^T, roughly (singular values within 0.7 to 1.2), by five steps of
    Jordan's quintic Newton-Schulz iteration."""
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def optimizers(model: GPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the blocks (unless muon_lr is 0), AdamW for all else."""
    inside = {"W_Q", "W_K", "W_V", "W_O", "W_in", "W_out"} if recipe.muon_lr else set()
    named = list(model.named_parameters())
    matrices = [p for name, p in named if name.rpartition(".")[2] in inside]
    rest = [p for name, p in named if name.rpartition(".")[2] not in inside]
    adamw = torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0)
    return [Muon(matrices, recipe.muon_lr), adamw] if matrices else [adamw]


def next_token_loss(model: GPT, rows: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean loss in nats of predicting rows[:, 1:] from rows[:, :-1], without holding all logits."""
    resid = model(rows[:, :-1], stop_at_layer=model.cfg.n_layers)
    return F.linear_cross_entropy(
        model.ln_final(resid).flatten(0, 1),
        model.unembed.W_U.mT,
        rows[:, 1:].flatten(),
        linear_bias=model.unembed.b_U,
        options=nn.LinearCrossEntropyOptions(),
    )


def train(
    model: GPT, data: Batches, recipe: Recipe, evaluate: Callable[[GPT], Record] | None = None
) -> Iterator[Record]:
    """Train the model in place, yielding a record every `evaluate_every` steps and at the end.

    `loss` is the mean since the record before. ValueError with the step if the loss is not finite.
    """
    opts = optimizers(model, recipe)
    rates = [[group["lr"] for group in opt.param_groups] for opt in opts]
    device, since, seconds = model.W_E.device, [], time.monotonic()
    tokens = 0
    for step in range(recipe.steps):
        rows = data.batch(step, recipe.batch_size).to(device)
        loss = next_token_loss(model, rows)
        if not loss.isfinite():
            raise ValueError(f"the loss is {loss.item()} at step {step}: lower lr or muon_lr")
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for opt, lrs in zip(opts, rates, strict=True):
            for group, lr in zip(opt.param_groups, lrs, strict=True):
                group["lr"] = lr * recipe.schedule(step)
            opt.step()
            opt.zero_grad()
        since.append(loss.item())
        tokens += rows[:, 1:].numel()
        if (step + 1) % recipe.evaluate_every == 0 or step + 1 == recipe.steps:
            measured = evaluate(model) if evaluate else {}
            yield {
                "step": step + 1,
                "tokens": tokens,
                "seconds": round(time.monotonic() - seconds, 1),
                "loss": sum(since) / len(since),
                **measured,
            }
            since = []


def write_log(records: list[Record], recipe: Recipe, folder: Path) -> None:
    """recipe.json and log.jsonl in `folder`: what was done, and what was seen at each record."""
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    lines = [json.dumps({k: round(v, 5) for k, v in record.items()}) for record in records]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
