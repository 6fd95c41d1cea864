"""Weights shared out among processes, for a model that does not fit into one: torch's FSDP2.

Each process holds its part of every parameter, of its gradient and of the optimizer's state, and
gathers a block's weights while it needs them. Whoever measures a model asks for `gather_model`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from circuits import distributed
from circuits.model import GPT

SINCE = "2.13"
"The first release of torch that this was tested with."


def shard(module: nn.Module, model: GPT) -> None:
    """Share out the parameters of `model`, block by block, and of `module` around it, in place.

    Their memory is laid out in the order of their dimensions, as FSDP2 wants it.
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
    """The model, in rank 0; None in the others. If the weights are shared out, it is a copy on the
    CPU, for which all processes must ask together."""
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
    """The whole of a tensor of which each process holds a part; any other tensor as it is."""
    shared: Any = value
    return shared.full_tensor().detach() if _is_shared(value) else value


def gather(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole of every tensor, on the CPU, in rank 0; the other ranks get none."""
    first, kept = distributed.rank() == 0, {}
    for name, tensor in tensors.items():
        one = full_tensor(tensor)
        if first:
            kept[name] = one.detach().cpu()
    return kept


def distribute_like(
    value: Shaped[Tensor, "*shape"], like: Shaped[Tensor, "*shape"]
) -> Shaped[Tensor, "*shape"]:
    """A whole tensor shared out like `like`; as it is if `like` is not shared out."""
    shared: Any = like
    if not _is_shared(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    there = value.to(shared.device_mesh.device_type)
    return distribute_tensor(there, shared.device_mesh, shared.placements)


def _is_shared(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")
