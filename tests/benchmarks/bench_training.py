"""Speed of the training loop beside a plain PyTorch one of the same shapes: prints a table.

    python -m tests.benchmarks.bench_training [--rounds 10] [--threads 1] [--shape zoo] [--compile]

Both have the same batches, the same fused loss, AdamW, clipping and a schedule, and read the loss
after every step; ours has its hooks (unused), checks and records. They take turns, in rounds of
a few steps; the ratio is the median of plain's time over ours in the same round (above 1: we are
faster). Snapshots are timed by themselves.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from circuits import GPT, GPTConfig
from circuits.data import RepeatedTokens
from circuits.training import Progress, Recipe, Snapshots, identity, optimizers, state, train
from tests.benchmarks.bench_model import PlainGPT

SHAPES = {
    "overhead": ({"n_heads": 4, "d_head": 8, "d_vocab": 64, "n_ctx": 32}, 16),
    "zoo": ({"n_heads": 4, "d_head": 32, "d_vocab": 2048, "n_ctx": 256}, 8),
    "zoo wide": ({"n_heads": 4, "d_head": 64, "d_vocab": 4096, "n_ctx": 256}, 8),
}
STEPS = 10_000


def ours(cfg: GPTConfig, data: RepeatedTokens, recipe: Recipe) -> Iterator[object]:
    """Our loop, a step at each `next`."""
    return train(GPT(cfg), data, recipe)


def plain(cfg: GPTConfig, data: RepeatedTokens, recipe: Recipe) -> Iterator[float]:
    """The loop as one writes it, a step at each `next`."""
    model = PlainGPT(cfg)
    opt = torch.optim.AdamW(model.parameters(), lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        x = model.embed(rows[:, :-1]) + model.pos.weight[: rows.shape[1] - 1]
        x = model.ln_final(model.blocks(x)).flatten(0, 1)
        return F.linear_cross_entropy(
            x, model.unembed.weight, rows[:, 1:].flatten(), linear_bias=model.unembed.bias,
            options=nn.LinearCrossEntropyOptions(),
        )  # fmt: skip

    compiled = torch.compile(loss_of) if recipe.compile else loss_of
    for step in range(recipe.steps):
        loss = compiled(data.batch(step, recipe.batch_size))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        for group in opt.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
            group["lr"] = recipe.lr * min(1.0, (step + 1) / recipe.warmup) * cosine
        opt.step()
        opt.zero_grad()
        yield loss.item()


def seconds(loop: Iterator[object], steps: int) -> float:
    """Wall time of one of `steps` steps."""
    start = time.perf_counter()
    for _ in range(steps):
        next(loop)
    return (time.perf_counter() - start) / steps


def compared(name: str, rounds: int, each: int, compile: bool) -> list[str]:
    """A row of the table."""
    fields, batch = SHAPES[name]
    cfg = GPTConfig(n_layers=2, d_model=fields["n_heads"] * fields["d_head"], **fields)
    n = (cfg.n_ctx - 1) // 2
    data = RepeatedTokens(cfg.d_vocab, shortest=n, longest=n)
    recipe = Recipe(
        steps=STEPS, batch_size=batch, muon_lr=0.0, evaluate_every=STEPS, compile=compile
    )
    contestants: dict[str, Callable[..., Iterator[object]]] = {"ours": ours, "plain": plain}
    recipe_of = {"ours": recipe.__class__(**{**recipe.__dict__, "evaluate_every": 1})}
    loops = {k: make(cfg, data, recipe_of.get(k, recipe)) for k, make in contestants.items()}
    for loop in loops.values():
        seconds(loop, 3)
    took: dict[str, list[float]] = {"ours": [], "plain": []}
    for round_ in range(rounds):
        for who in sorted(loops, reverse=round_ % 2 == 1):
            took[who].append(seconds(loops[who], each))
    ratio = statistics.median(p / o for p, o in zip(took["plain"], took["ours"], strict=True))
    middle = {who: statistics.median(times) for who, times in took.items()}
    rate = batch * 2 * n / middle["ours"]
    cells = [f"{middle[who] * 1e3:.2f} ms" for who in ("ours", "plain")]
    return [name, *cells, f"{ratio:.3f}", f"{rate:,.0f}", f"{snapshot_seconds(cfg):.3f} s"]


def snapshot_seconds(cfg: GPTConfig) -> float:
    """Wall time of one snapshot after a step with Muon, flushed to disk."""
    model, recipe = GPT(cfg), Recipe(steps=1, batch_size=1)
    data = RepeatedTokens(cfg.d_vocab, shortest=4, longest=4)
    opts = optimizers(model, recipe)
    model(data.batch(0, 1), return_type="loss").backward()
    for opt in opts:
        opt.step()
    with tempfile.TemporaryDirectory() as folder:
        snapshots, known = Snapshots(folder=Path(folder)), identity(model, data, recipe)
        start = time.perf_counter()
        snapshots.write(state(model, opts), Progress(), known)
        return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--each", type=int, default=5, help="steps in a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    table = Table(title=f"a training step; {asked.threads} thread(s), {asked.rounds} rounds")
    for column in ("shape", "ours", "plain", "ratio", "tokens/s", "snapshot"):
        table.add_column(column, justify="left" if column == "shape" else "right")
    for name in asked.shape or SHAPES:
        table.add_row(*compared(name, asked.rounds, asked.each, asked.compile))
    Console().print(table)


if __name__ == "__main__":
    main()
