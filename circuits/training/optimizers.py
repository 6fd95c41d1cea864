"""The optimizers: Muon for the matrices in the blocks, AdamW for all other parameters."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.model import GPT
from circuits.training.recipe import Recipe

WRITING = {"W_V", "W_O", "W_out"}
"The matrices whose product is written to the residual stream. They have weight decay."
READING = {"W_Q", "W_K", "W_gate", "W_in"}
"The matrices that only read the residual stream."


class Muon(torch.optim.Optimizer):
    """Momentum with an orthogonal step for each matrix, which is the last two dims.

    Before each step a matrix is multiplied by 1 - lr * decay. Its spectral norm then tends to at
    most 1.2 / decay.

    Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). torch.optim.Muon takes only 2-D
    parameters and computes in bfloat16. That is 200 times slower on a processor without bfloat16
    (2.1 s per step at d_model 256 against 10 ms). Here each head's [d_model d_head] is one matrix,
    and the computation has the dtype of the parameters.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.95, decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for param in group["params"]:
                buffer = self.state[param].setdefault("momentum", torch.zeros_like(param))
                buffer.lerp_(param.grad, 1 - group["momentum"])
                nesterov = param.grad.lerp(buffer, group["momentum"])
                if group["decay"]:
                    param.mul_(1 - group["lr"] * group["decay"])
                param.sub_(orthogonalise(nesterov), alpha=group["lr"])


def orthogonalise(
    matrix: Float[Tensor, "*lead rows columns"],
) -> Float[Tensor, "*lead rows columns"]:
    """About U V^T of the SVD U S V^T, with singular values from 0.7 to 1.2, by five steps of
    Jordan's quintic Newton-Schulz iteration."""
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


def optimizers(model: GPT, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices of the blocks (unless muon_lr is 0), AdamW for all other
    parameters. Only W_V, W_O and W_out have weight decay: without it their outputs become much
    larger than the embedding. W_Q and W_K must grow freely for sharp attention.

    The first optimizer of a process makes torch import torch._dynamo, which sets
    os.environ["TORCHINDUCTOR_CACHE_DIR"] to torch's default folder.
    """
    writing = _named(model, WRITING) if recipe.muon_lr else []
    reading = _named(model, READING) if recipe.muon_lr else []
    in_muon = {id(weight) for weight in (*writing, *reading)}
    rest = [weight for weight in model.parameters() if id(weight) not in in_muon]
    adamw = torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0)
    if not in_muon:
        return [adamw]
    groups = [{"params": writing, "decay": recipe.muon_decay}, {"params": reading}]
    return [Muon(groups, recipe.muon_lr), adamw]


def _named(model: GPT, names: set[str]) -> list[torch.nn.Parameter]:
    return [w for name, w in model.named_parameters() if name.rpartition(".")[2] in names]
