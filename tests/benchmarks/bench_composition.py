"""Speed of labelled composition scores with their chance line: prints a table.

    python -m tests.benchmarks.bench_composition [--rounds 7] [--threads 1]

Ours are `analyses.head_composition.over_chance` of 48 heads of a 512-wide model, for each null;
theirs are the three calls for Q, K and V of TransformerLens's bridge with the same weights, which
have no chance line. All take turns in one process, each comes first in turn, and a ratio is the
median of the bridge's time over ours in the same round (above 1: we are faster).
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table

from analyses import head_composition
from circuits import GPT, GPTConfig
from circuits.io import bridge
from tests.benchmarks.bench_algebra import same_weights, seconds

SHAPE = {"n_layers": 6, "d_model": 512, "n_heads": 8, "d_head": 64, "d_vocab": 64, "n_ctx": 16}
PEER = "bridge, its three calls"


def calls(model: GPT) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    theirs = bridge.to_transformer_lens(model)
    same_weights(model, theirs)

    def first() -> object:
        composition._largest_at_random.cache_clear()
        return head_composition.over_chance(model)

    return {
        "chance drawn, first of its shape": first,
        "chance drawn before": lambda: head_composition.over_chance(model),
        'null="closed"': lambda: head_composition.over_chance(model, null="closed"),
        'null="rotated"': lambda: head_composition.over_chance(model, null="rotated"),
        PEER: lambda: [theirs.all_composition_scores(via) for via in "QKV"],
    }


def rounds_of(timed: dict[str, Callable[[], object]], rounds: int) -> list[dict[str, float]]:
    """Seconds of each call in each round, after one round that warms up."""
    names, taken = list(timed), []
    for number in range(rounds + 1):
        turn = number % len(names)
        order = names[turn:] + names[:turn]
        taken.append({name: seconds(timed[name])[0] for name in order})
    return taken[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    table = Table(title=f"48 heads, 512 wide; {options.rounds} rounds, {options.threads} threads")
    for column in ("call", "ms, median", "ms, least", "bridge / this"):
        table.add_column(column, justify="left" if column == "call" else "right")
    with torch.no_grad():
        timed = calls(GPT(GPTConfig(**SHAPE)).eval())
        taken = rounds_of(timed, options.rounds)
    for name in timed:
        own = [1000 * one[name] for one in taken]
        ratio = statistics.median(one[PEER] / one[name] for one in taken)
        table.add_row(name, f"{statistics.median(own):.0f}", f"{min(own):.0f}", f"{ratio:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
