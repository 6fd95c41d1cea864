"""Do two threads on one model give the numbers of one? Runs each analysis so, and prints a table.

    python -m tests.benchmarks.threads [--runs 200]

Two threads call the same analysis of one model on inputs of their own, again and again, while
Python switches between them as often as it can; then each of the eleven has a turn beside plain
forward passes. `wrong` counts results that differ from the single-threaded ones in any bit.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from analyses import (
    Task,
    ablation,
    attention,
    attribution,
    discovery,
    idealised,
    importance,
    metrics,
    patching,
)
from analyses.causal.path_patching import path_patching
from circuits import GPT

Numbers = Callable[[], np.ndarray]
"An analysis on inputs of its own, and what it finds, as numbers."


def eleven(model: GPT, seed: int) -> dict[str, Numbers]:
    """Eleven analyses that run the model with hooks of their own, on tokens of their own."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(batch: int = 3, pos: int = 9) -> Tensor:
        return torch.randint(1, model.cfg.d_vocab, (batch, pos), generator=generator)

    tokens, other, (right, wrong) = drawn(), drawn(), drawn(2, 3)
    metric = metrics.logit_difference(right, wrong)
    kept = discovery.edges(model)
    kept.values[:, ::2] = False
    edges = {"senders": ["L0H0", "embed"], "receivers": ["L1H1.K", "logits"]}

    def task() -> Task:
        """A new task each time, so that it runs each time."""
        return Task(model, tokens, other, metric)

    return {
        "discovery.value": lambda: discovery.value(task(), kept).values,
        "discovery.eap": lambda: discovery.eap(task()).values,
        "discovery.exact": lambda: discovery.exact(task()).values,
        "ablation.of_heads": lambda: ablation.of_heads(model, tokens).values,
        "ablation.by_kind": lambda: ablation.by_kind(task(), ["L0H0", "L1H1"]).values,
        "attribution.heads": lambda: attribution.heads(task()).values,
        "patching.heads": lambda: patching.heads(task()).values,
        "path_patching": lambda: path_patching(task(), **edges).values,
        "importance.by_order": lambda: importance.by_order(model, tokens).values,
        "idealised": lambda: idealised.substituted(task(), ["L0H0"]).values,
        "attention": lambda: attention.previous_token(model, tokens).values,
    }  # fmt: skip


def plain(model: GPT, seed: int) -> Numbers:
    """Logits of a run without hooks."""
    tokens = torch.randint(1, 9, (3, 9), generator=torch.Generator().manual_seed(seed))
    return lambda: model(tokens).detach().numpy()


def wrong(analyses: tuple[Numbers, Numbers], runs: int) -> int:
    """How many of `runs` results of each of two threads are not those of one thread, or fail."""

    def differs(call: Numbers, expected: np.ndarray) -> int:
        count = 0
        for _ in range(runs):
            try:
                count += not np.array_equal(call(), expected, equal_nan=True)
            except Exception:
                count += 1
        return count

    expected, before = [call() for call in analyses], sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            return sum(pool.map(differs, analyses, expected))
    finally:
        sys.setswitchinterval(before)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200, help="of each thread")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    from tests.conftest import tiny

    model = tiny(n_ctx=32)
    table = Table("analysis", "wrong beside itself", "wrong beside plain runs", "of")
    one, other = eleven(model, 1), eleven(model, 2)
    for name in one:
        beside = wrong((one[name], other[name]), runs), wrong((one[name], plain(model, 3)), runs)
        table.add_row(name, *map(str, beside), str(2 * runs))
    Console().print(table)


if __name__ == "__main__":
    main()
