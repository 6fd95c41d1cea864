"""Speed of forward and run_with_cache beside TransformerLens and plain PyTorch: prints a table.

    python -m tests.benchmarks.bench_model [--rounds 15] [--threads 2] [--shape gpt2-small]

All contestants have the same shape, are called in turn in one process, and are judged by medians;
`ratio` is the other's median over ours (above 1: we are faster). Peak memory is that of one call,
measured in a second pass by torch's allocator events.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import nn

from circuits import GPT, GPTConfig

SHAPES = {
    "overhead": (
        {"n_layers": 2, "d_model": 64, "n_heads": 4, "d_head": 16, "d_vocab": 64, "n_ctx": 32},
        (8, 32),
    ),
    "shipped": (
        {"n_layers": 2, "d_model": 256, "n_heads": 8, "d_head": 32, "d_vocab": 2048, "n_ctx": 256},
        (8, 256),
    ),
    "gpt2-small": (
        {"n_layers": 12, "d_model": 768, "n_heads": 12, "d_head": 64, "d_vocab": 50257,
         "n_ctx": 1024, "d_mlp": 3072, "act_fn": "gelu"},
        (1, 512),
    ),
}  # fmt: skip


class PlainBlock(nn.Module):
    """A block as one writes it without hooks: fused q, k, v and scaled_dot_product_attention."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        inner = cfg.n_heads * cfg.d_head
        self.n_heads = cfg.n_heads
        self.ln1, self.qkv = nn.LayerNorm(cfg.d_model), nn.Linear(cfg.d_model, 3 * inner)
        self.out = nn.Linear(inner, cfg.d_model)
        self.mlp = None if cfg.d_mlp is None else nn.Sequential(
            nn.LayerNorm(cfg.d_model), nn.Linear(cfg.d_model, cfg.d_mlp), nn.GELU(),
            nn.Linear(cfg.d_mlp, cfg.d_model),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.ln1(x)).unflatten(-1, (3, self.n_heads, -1)).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(z.transpose(1, 2).flatten(2))
        return x if self.mlp is None else x + self.mlp(x)


class PlainGPT(nn.Module):
    """A hook-free GPT of the same shape."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.embed, self.pos = (
            nn.Embedding(cfg.d_vocab, cfg.d_model),
            nn.Embedding(cfg.n_ctx, cfg.d_model),
        )
        self.blocks = nn.Sequential(*(PlainBlock(cfg) for _ in range(cfg.n_layers)))
        self.ln_final, self.unembed = nn.LayerNorm(cfg.d_model), nn.Linear(cfg.d_model, cfg.d_vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens) + self.pos.weight[: tokens.shape[1]]
        return self.unembed(self.ln_final(self.blocks(x)))


def native_bridge(cfg: GPTConfig) -> nn.Module:
    """TransformerLens 4's model of the same shape."""
    import transformer_lens.model_bridge.sources  # noqa: F401  registers boot_native
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_native(
        TransformerBridgeConfig(
            d_model=cfg.d_model, d_head=cfg.d_head, n_layers=cfg.n_layers, n_ctx=cfg.n_ctx,
            n_heads=cfg.n_heads, d_vocab=cfg.d_vocab, d_mlp=cfg.d_mlp, attn_only=cfg.attn_only,
            normalization_type="LN", act_fn=cfg.act_fn or "gelu", seed=0,
        )
    ).eval()  # fmt: skip


def milliseconds(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median time of each call, all of them in turn in each round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for round_ in range(rounds + 2):
        turn = round_ % len(
            names
        )  # each in turn comes first, so that none always follows a big one
        for name in names[turn:] + names[:turn]:
            call = calls[name]
            start = time.perf_counter()
            call()
            if round_ >= 2:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(taken) for name, taken in times.items()}


def peak_mebibytes(call: Callable[[], object]) -> float:
    """Most memory that one call held at a time beyond what was held before, results included."""
    with torch.profiler.profile(profile_memory=True, with_stack=False) as profile:
        held = call()
    events = sorted(
        (event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"),
        key=lambda event: event.start_ns(),
    )
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    del held
    return peak / 2**20


def contest(cfg: GPTConfig, tokens: torch.Tensor, rounds: int) -> list[tuple[str, float, float]]:
    """Name, median milliseconds and peak MiB of each contestant, ours first of its kind."""
    ours, plain, bridge = GPT(cfg).eval(), PlainGPT(cfg).eval(), native_bridge(cfg)
    resid = f"blocks.{cfg.n_layers - 1}.hook_resid_post"
    calls = {
        "forward": lambda: ours(tokens),
        "forward, plain PyTorch": lambda: plain(tokens),
        "forward, bridge": lambda: bridge(tokens),
        "cache all": lambda: ours.run_with_cache(tokens),
        "cache all, bridge": lambda: bridge.run_with_cache(tokens),
        "cache one": lambda: ours.run_with_cache(tokens, names_filter=resid),
        "cache one, bridge": lambda: bridge.run_with_cache(tokens, names_filter=resid),
    }
    with torch.no_grad():
        taken = milliseconds(calls, rounds)
        return [(name, taken[name], peak_mebibytes(call)) for name, call in calls.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    console = Console(width=110)
    for title in options.shape or SHAPES:
        shape, (batch, pos) = SHAPES[title]
        cfg = GPTConfig(**shape)
        tokens = torch.randint(0, cfg.d_vocab, (batch, pos))
        rounds = options.rounds * (20 if title == "overhead" else 1)
        words = f"{cfg.n_layers} layers, d_model {cfg.d_model}, {batch} x {pos} tokens"
        table = Table(title=f"{title}: {words}; {rounds} rounds, {options.threads} threads")
        for name in ("call", "ms", "ratio to ours", "peak MiB"):
            table.add_column(name, justify="left" if name == "call" else "right")
        own = 1.0
        for name, ms, mebibytes in contest(cfg, tokens, rounds):
            own = own if "," in name else ms
            table.add_row(name, f"{ms:.3f}", f"{ms / own:.2f}", f"{mebibytes:.1f}")
        console.print(table)


if __name__ == "__main__":
    main()
