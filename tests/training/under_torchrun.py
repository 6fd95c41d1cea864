"""What each process of a distributed test does: a module for `torch.distributed.run -m`.

torchrun --nproc-per-node 2 -m tests.training.under_torchrun FOLDER [KILLED_AT]
"""

import json
import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from analyses import evaluation
from circuits import GPT, GPTConfig, distributed, save
from circuits.data import RepeatedTokens
from circuits.training import Progress, Recipe, Record, Snapshots, gather_model, train
from tests.conftest import tiny, tiny_tokens

SHAPE = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_vocab": 32, "n_ctx": 31,
         "d_mlp": 12, "act_fn": "gelu"}  # fmt: skip
RECIPE = Recipe(
    steps=20, batch_size=8, lr=3e-3, muon_lr=0.02, warmup=4, evaluate_every=1, accumulate=2
)
ROWS = torch.cat([tiny_tokens(batch=11, pos=12, d_vocab=9), torch.arange(12)[None]])
"Rows to evaluate on: eleven with repeated tokens, and one without any."


class Deadly(RepeatedTokens):
    """Data that kill rank 1 when a step is read."""

    killed_at = -1

    def batch(self, step, size):
        if step == self.killed_at and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(step, size)


def run(
    folder: Path, killed_at: int = -1, *, shard: bool = False, until: int | None = None
) -> list[list[float]]:
    """Train, measure, and leave the losses and the model in `folder`, written by rank 0 alone."""
    torch.set_num_threads(1)
    model = GPT(GPTConfig(**SHAPE)).double()
    data = Deadly(32, shortest=4, longest=15)
    data.killed_at = killed_at
    snapshots = Snapshots(folder=folder / "snapshots", every=4)

    def watch(seen: GPT, progress: Progress) -> bool:
        assert hasattr(seen.W_E, "full_tensor") == shard
        assert (gather_model(seen) is None) == (distributed.rank() > 0)
        return progress.step == until

    def evaluate(seen: GPT) -> Record:
        assert seen.W_E.shape == (32, 16) and type(seen.W_E.detach()) is torch.Tensor
        return {"held_out": float(seen(data.batch(99, 4)[:, 1:], return_type="loss").detach())}

    how = {"snapshots": snapshots, "watch": watch, "shard": shard}
    records = train(model, data, RECIPE, evaluate, **how)
    losses = [[record["loss"], record.get("held_out", 0.0)] for record in records]
    seen = gather_model(model)
    if seen is not None:
        (folder / "losses.json").write_text(json.dumps(losses))
        save(seen, folder / "model", dtype=torch.float64, overwrite=True)
    return losses


def evaluate(folder: Path) -> None:
    """Evaluate a tiny model, and leave the numbers that this rank has in `folder`."""
    seen = evaluation.evaluate_on(tiny(), ROWS.split(5))
    numbers = {name: values.values for name, values in seen.data_vars.items()}
    np.savez(folder / f"{distributed.rank()}.npz", allow_pickle=False, **numbers)


def pair(what: Callable[[Path], object], folder: Path) -> list[int | None]:
    """Two processes that do the same, as torchrun would start them; their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["circuits.training", "torch._dynamo"])
    both = [context.Process(target=_as_rank, args=(what, i, port, folder)) for i in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    return [process.exitcode for process in both]


def _as_rank(what: Callable[[Path], object], rank: int, port: int, folder: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    warnings.simplefilter("error")
    with distributed.group("gloo"):
        what(folder)


if __name__ == "__main__":
    with distributed.group("gloo"):
        run(Path(sys.argv[1]), int(sys.argv[2]))
