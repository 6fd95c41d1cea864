"""Weights shared among processes, for a model that does not fit into one process: torch's FSDP2.

Each process holds a part of every parameter, gradient and optimizer state, and gathers a block's
weights while it needs them. To measure the model, call `gather_model`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from circuits import distributed
from circuits.model import GPT

SINCE = "2.13"
"The first release of torch with which this was tested."


def shard(module: nn.Module, model: GPT) -> None:
    """Share the parameters of `model` among the processes in place, block by block, then the rest
    of `module`, which contains the model.

    Parameters become contiguous in memory, as FSDP2 needs them.
    ValueError outside of a process group, and for a torch before 2.13 (FSDP2 of 2.6 fails on CPUs).
    """
    if torch.__version__ < SINCE:
        raise ValueError(
            f"weights are shared among processes by torch {SINCE} or newer, this is torch "
            f"{torch.__version__}: train without shard (--shard), or update torch"
        )
    if distributed.world() == 1:
        raise ValueError("weights are shared among processes: run it under torchrun")
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    mesh = init_device_mesh(device, (distributed.world(),))
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    for part in (*model.blocks, module):
        fully_shard(part, mesh=mesh)


def gather_model(model: GPT) -> GPT | None:
    """The model in rank 0, None in the other ranks. If the weights are shared, it is a copy on the
    CPU, and all processes must call this together."""
    weights, first = model.state_dict(), distributed.rank() == 0
    if not any(map(_is_shared, weights.values())):
        return model if first else None
    copy = GPT(model.cfg, model.tokenizer).to(model.W_E.dtype) if first else None
    own = copy.state_dict() if copy else {}
    for name, weight in weights.items():
        full = full_tensor(weight)
        if copy:
            own[name].copy_(full)
    if copy:
        copy.bos, copy.trained_ctx = model.bos, model.trained_ctx
    return copy.eval() if copy else None


def full_tensor(value: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The whole of a tensor that is shared among processes; any other tensor unchanged."""
    shared: Any = value
    return shared.full_tensor().detach() if _is_shared(value) else value


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole of every tensor, on the CPU, in rank 0; an empty dict in the other ranks."""
    first, kept = distributed.rank() == 0, {}
    for name, tensor in tensors.items():
        one = full_tensor(tensor)
        if first:
            kept[name] = one.detach().cpu()
    return kept


def distribute_like(
    value: Shaped[Tensor, "*shape"], like: Shaped[Tensor, "*shape"]
) -> Shaped[Tensor, "*shape"]:
    """A whole tensor shared among processes in the same way as `like`; unchanged if `like` is not
    shared."""
    shared: Any = like
    if not _is_shared(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    there = value.to(shared.device_mesh.device_type)
    return distribute_tensor(there, shared.device_mesh, shared.placements)


def _is_shared(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")
