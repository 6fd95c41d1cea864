"""What each process of a distributed test does: a module for `torch.distributed.run -m`.

python -m torch.distributed.run --nproc-per-node 2 -m tests.under_torchrun FOLDER [KILLED_AT]
"""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import torch

from circuits import GPT, GPTConfig, distributed, save
from circuits.data import RepeatedTokens
from circuits.recipe import Recipe
from circuits.snapshots import Snapshots
from circuits.training import train

SHAPE = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_head": 8, "d_vocab": 32, "n_ctx": 31}
RECIPE = Recipe(
    steps=20, batch_size=8, lr=3e-3, muon_lr=0.02, warmup=4, evaluate_every=1, accumulate=2
)


class Deadly(RepeatedTokens):
    """Data that kill rank 1 when a step is read."""

    killed_at = -1

    def batch(self, step, size):
        if step == self.killed_at and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batch(step, size)


def run(folder: Path, killed_at: int = -1) -> list[float]:
    """Train, and leave the losses and the model in `folder`, written by rank 0 alone."""
    torch.set_num_threads(1)
    model = GPT(GPTConfig(**SHAPE)).double()
    data = Deadly(32, shortest=4, longest=15)
    data.killed_at = killed_at
    snapshots = Snapshots(folder=folder / "snapshots", every=4)
    losses = [record["loss"] for record in train(model, data, RECIPE, snapshots=snapshots)]
    if distributed.rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
        save(model, folder / "model", dtype=torch.float64)
    return losses


def as_rank(rank: int, world: int, port: int, folder: Path) -> None:
    """What torchrun sets, then the run; for processes that a test starts by itself."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    warnings.simplefilter("error")
    with distributed.group("gloo"):
        run(folder)


if __name__ == "__main__":
    with distributed.group("gloo"):
        run(Path(sys.argv[1]), int(sys.argv[2]))
