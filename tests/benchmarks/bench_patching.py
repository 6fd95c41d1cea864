"""Speed of patching sweeps beside TransformerLens's `patching`: prints a table.

    python -m tests.benchmarks.bench_patching [--rounds 3] [--threads 2] [--layers 12] ...

The native bridge and our model have the same weights and the same metric (the logit difference at
the last position, one prompt). All sweeps are called in turn in one process and judged by medians;
`ratio` is theirs over ours (above 1: we are faster), and for path patching from every head to the
logits, ours over our own head sweep (target: at most 2). `difference` is the largest between the
results. Peak memory is that of one call beyond what was held before.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from analyses import Task, metrics, patching
from analyses.causal.path_patching import path_patching
from circuits import GPT, GPTConfig, interventions
from circuits.io import load_weights
from circuits.model import every_head
from tests.benchmarks.bench_model import milliseconds, native_bridge, peak_mebibytes
from tests.model.test_gpt import _bridge_weight

TARGETS = {"residual stream": 5.0, "heads": 3.0}


def contest(
    cfg: GPTConfig, n: int, rounds: int, memory: int
) -> list[tuple[str, float, float | None, float | None, float]]:
    """Name, milliseconds, ratio, largest difference and peak MiB of each sweep."""
    from transformer_lens import patching as theirs

    bridge, ours = native_bridge(cfg), GPT(cfg).eval()
    load_weights(ours, {name: _bridge_weight(bridge, name) for name in ours.state_dict()})
    generator = torch.Generator().manual_seed(0)
    clean, corrupted = torch.randint(0, cfg.d_vocab, (2, 1, n), generator=generator)
    metric = metrics.logit_difference(torch.tensor([3]), torch.tensor([7]))
    with torch.no_grad():
        _, their_source = bridge.run_with_cache(clean)
    task = Task(ours, clean, corrupted, metric)
    task.clean_run, task.corrupted_run  # noqa: B018 -- the runs are made and kept
    heads = [str(head) for head in every_head(cfg)]

    def single(logits: torch.Tensor) -> torch.Tensor:
        return metric(logits)[0]

    def their(sweep: Callable[..., Any]) -> Callable[[], torch.Tensor]:
        return lambda: sweep(bridge, corrupted, their_source, single)

    how = {"memory": memory}
    calls: dict[str, Callable[[], Any]] = {
        "residual stream": lambda: patching.positions(task, **how),
        "residual stream, bridge": their(theirs.get_act_patch_resid_pre),
        "heads": lambda: patching.heads(task, **how),
        "heads, bridge": their(theirs.get_act_patch_attn_head_out_all_pos),
        "paths to logits": lambda: path_patching(
            task, senders=heads, receivers=["logits"], into="corrupted", **how
        ),
    }
    with torch.no_grad():
        taken = milliseconds(calls, rounds)
        rows = []
        for name in ("residual stream", "heads"):
            ms, bridge_ms = taken[name], taken[f"{name}, bridge"]
            result = torch.as_tensor(calls[name]().values)[..., 0]
            difference = (result - calls[f"{name}, bridge"]().cpu()).abs().max().item()
            rows.append((name, ms, bridge_ms / ms, difference, peak_mebibytes(calls[name])))
            rows.append((f"{name}, bridge", bridge_ms, None, None,
                         peak_mebibytes(calls[f"{name}, bridge"])))  # fmt: skip
        ms = taken["paths to logits"]
        peak = peak_mebibytes(calls["paths to logits"])
    return [*rows, ("paths to logits", ms, ms / taken["heads"], None, peak)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    sizes = {"layers": 12, "heads": 12, "width": 768, "vocabulary": 50257, "tokens": 32}
    for name, default in {**sizes, "mebibytes": interventions.MEMORY // 2**20}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cfg = GPTConfig(
        n_layers=given.layers, d_model=given.width, n_heads=given.heads,
        d_head=given.width // given.heads, d_vocab=given.vocabulary, n_ctx=max(64, given.tokens),
        d_mlp=4 * given.width, act_fn="gelu",
    )  # fmt: skip
    shape = f"{given.layers} layers x {given.heads} heads, d_model {given.width}, {given.tokens}"
    table = Table(title=f"{shape} tokens; {given.rounds} rounds, {given.threads} threads")
    for name in ("sweep", "ms", "ratio", "target", "difference", "peak MiB"):
        table.add_column(name, justify="left" if name == "sweep" else "right")
    for name, ms, ratio, difference, peak in contest(
        cfg, given.tokens, given.rounds, given.mebibytes * 2**20
    ):
        target = f">= {TARGETS[name]:.0f}" if name in TARGETS else "<= 2" if ratio else ""
        table.add_row(
            name, f"{ms:.0f}", "" if ratio is None else f"{ratio:.2f}", target,
            "" if difference is None else f"{difference:.1e}", f"{peak:.1f}",
        )  # fmt: skip
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
