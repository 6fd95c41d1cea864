"""Speed of the circuit algebra on a model of GPT-2 small's shape: prints a table.

    python -m tests.benchmarks.bench_algebra [--rounds 5] [--threads 2] [--only composition]

Composition scores are taken by us and by TransformerLens's native bridge from the same weights, in
turn in one process, and compared; theirs come once a round, one way to read at a time. The other
rows have no counterpart that fits in memory. Peak memory is what one call holds beyond what was
held before, by torch's allocator events, in a pass of its own.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from circuits import GPT, GPTConfig, algebra, composition
from tests.benchmarks.bench_model import native_bridge, peak_mebibytes

SHAPE = {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_head": 64, "d_vocab": 50257,
         "n_ctx": 1024, "d_mlp": 3072, "act_fn": "gelu"}  # fmt: skip


def seconds(call: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def same_weights(ours: GPT, bridge: torch.nn.Module) -> None:
    """Copy our heads into the bridge. Its composition scores read the attention weights alone; ours
    fold the norm's gain, which is 1, and its centring, which is in the weights we copy."""
    for block, theirs in zip(ours.blocks, bridge.blocks, strict=True):
        for name in ("W_Q", "W_K", "W_V"):
            W = algebra.folded(block.ln1, getattr(block.attn, name))
            getattr(theirs.attn, name).copy_(W)
        theirs.attn.W_O.copy_(block.attn.W_O)


def composition_rows(model: GPT, rounds: int) -> list[tuple[str, str, str, str]]:
    bridge = native_bridge(model.cfg)
    same_weights(model, bridge)
    taken: dict[str, list[float]] = {"ours": [], "bridge": []}
    scores = composition.scores(model)  # warm
    theirs = torch.empty(0)
    for _ in range(rounds):
        took, scores = seconds(lambda: composition.scores(model))
        taken["ours"].append(took)
        took, theirs = seconds(
            lambda: torch.stack([bridge.all_composition_scores(via) for via in composition.VIA])
        )
        taken["bridge"].append(took)
    pairs = ~scores.isnan()
    differ = (scores[pairs] - theirs.movedim(0, 0)[pairs]).abs().max().item()
    ours, other = (statistics.median(taken[name]) for name in ("ours", "bridge"))
    peak = peak_mebibytes(lambda: composition.scores(model))
    name = "Q, K and V composition of all pairs of heads"
    return [
        (name, f"{ours:.3f}", "1", f"{peak:.0f}"),
        (
            f"... bridge (largest difference {differ:.1e})",
            f"{other:.1f}",
            f"{other / ours:.1f}",
            "",
        ),
    ]


def eigenvalue_rows(model: GPT, rounds: int) -> list[tuple[str, str, str, str]]:
    def call() -> object:
        return algebra.full_OV(model).eigenvalues

    took = statistics.median(seconds(call)[0] for _ in range(rounds))
    name = "eigenvalues of the full OV circuit of 144 heads, 50257 tokens"
    return [(name, f"{took:.2f}", "", f"{peak_mebibytes(call):.0f}")]


def top_rows(model: GPT, rounds: int) -> list[tuple[str, str, str, str]]:
    circuit = algebra.full_OV(model)[5, 7]
    took = statistics.median(seconds(lambda: circuit.top(100))[0] for _ in range(rounds))
    name = "exact top 100 entries of one 50257 x 50257 circuit (10.1 GB if held)"
    return [(name, f"{took:.2f}", "", f"{peak_mebibytes(lambda: circuit.top(100)):.0f}")]


ROWS = {"composition": composition_rows, "eigenvalues": eigenvalue_rows, "top": top_rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(ROWS), action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    title = f"GPT-2 small's shape, medians of {options.rounds} rounds, {options.threads} threads"
    table = Table(title=title)
    for column in ("call", "seconds", "ratio to ours", "peak MiB"):
        table.add_column(column, justify="left" if column == "call" else "right")
    with torch.no_grad():
        model = GPT(GPTConfig(**SHAPE)).eval()
        for name in options.only or ROWS:
            for row in ROWS[name](model, options.rounds):
                table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
