"""Many processes, one run: the few things that a run needs of torch's process group, if any.

Without a group there is one process, of rank 0, and every function here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor

Made = TypeVar("Made")


@contextmanager
def group(backend: str) -> Iterator[None]:
    """Join the group that torchrun describes in the environment ("gloo" on CPUs, "nccl" on GPUs),
    and leave it when the block ends. Outside of torchrun the process stays alone."""
    if "TORCHELASTIC_RUN_ID" not in os.environ and "RANK" not in os.environ:
        yield
        return
    dist.init_process_group(backend)
    try:
        yield
    finally:
        dist.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _together() else 0


def world() -> int:
    """The number of processes."""
    return dist.get_world_size() if _together() else 1


def share(rows: Shaped[Tensor, "batch *rest"]) -> Shaped[Tensor, "part *rest"]:
    """The rows of this rank: every `world`th, from its own number on."""
    return rows[rank() :: world()]


def mean(value: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The mean over the processes, the same number in each."""
    return total(value) / world()


def of_rank_0(value: int, device: torch.device) -> int:
    """The value that rank 0 has, in every process."""
    if not _together():
        return value
    said = torch.tensor(value, device=device)
    dist.broadcast(said, 0)
    return int(said)


def total(value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The sum over the processes, the same in each."""
    if _together():
        value = value.clone()
        dist.all_reduce(value)
    return value


def first_alone(make: Callable[[], Made], device: torch.device) -> Made:
    """The result of `make` in each process. Rank 0 calls it first, so that the others find its
    files."""
    if rank() == 0:
        made = make()
        of_rank_0(0, device)
        return made
    of_rank_0(0, device)
    return make()


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
