"""Weights: stacked by layer, initialised, and compared by name with a checkpoint."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.model.config import GPTConfig

_SHAPES = {
    "W_Q": ("n_heads", "d_model", "d_head"),
    "W_K": ("n_heads", "d_model", "d_head"),
    "W_V": ("n_heads", "d_model", "d_head"),
    "W_O": ("n_heads", "d_head", "d_model"),
    "W_gate": ("d_model", "d_mlp"),
    "W_in": ("d_model", "d_mlp"),
    "W_out": ("d_mlp", "d_model"),
}


def stack(model: Any, part: Literal["attn", "mlp"], name: str) -> Float[Tensor, "layer ..."]:
    """The weight `name` of every block's `part`, stacked by layer. ValueError for the MLPs of an
    attention-only model."""
    if part == "mlp":
        d_mlp(model.cfg)
    weights = [getattr(getattr(block, part), name) for block in model.blocks]
    shape = [getattr(model.cfg, size) for size in _SHAPES[name]]
    return torch.stack(weights) if weights else model.W_U.new_empty(0, *shape)


def W_gate(model: Any) -> Float[Tensor, "layer d_model d_mlp"]:
    """Gate weights; ValueError for a model without gated MLPs."""
    if not model.cfg.gated_mlp:
        raise ValueError("the model has no W_gate: gated_mlp=False")
    return stack(model, "mlp", "W_gate")


def d_mlp(cfg: GPTConfig) -> int:
    """The number of neurons of each MLP; ValueError for an attention-only model."""
    if cfg.d_mlp is None:
        raise ValueError("the model is attention-only: it has no W_in and W_out")
    return cfg.d_mlp


def accumulated_bias(
    model: Any, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
) -> Float[Tensor, " d_model"]:
    """The sum of the biases that earlier blocks add to the stream before block `layer`: every b_O
    and, with `include_mlp_biases`, every b_out. `mlp_input` adds the b_O of block `layer`, which
    its MLP reads too, unless the block is parallel."""
    if not 0 <= layer <= model.cfg.n_layers - mlp_input:
        raise ValueError(f"layer {layer} does not exist: the model has {model.cfg.n_layers}")
    heads_first = mlp_input and not model.cfg.parallel_attn_mlp
    written = [block.attn.b_O for block in model.blocks[: layer + int(heads_first)]]
    if include_mlp_biases and not model.cfg.attn_only:
        written += [block.mlp.b_out for block in model.blocks[:layer]]
    zero = model.W_U.new_zeros(model.cfg.d_model)
    return torch.stack([zero, *(bias for bias in written if bias is not None)]).sum(0)


@torch.no_grad()
def initialise(model: nn.Module, cfg: GPTConfig) -> None:
    """Draw every weight matrix from a normal distribution with the config's seed and ranges."""
    generator = torch.Generator().manual_seed(cfg.seed)
    for name, weight in model.named_parameters():
        if name.rpartition(".")[2].startswith("W_"):
            own = cfg.embed_init_range if name == "embed.W_E" else None
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn * (own or cfg.init_range))


def unwrap_names(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Weights by name, without the prefixes `_orig_mod.` of torch.compile and `module.` of
    DistributedDataParallel; unchanged if two weights would get the same name."""
    names = {name: _bare(name) for name in weights}
    if len(set(names.values())) < len(names):
        return weights
    return {names[name]: weight for name, weight in weights.items()}


def is_bias(name: str) -> bool:
    """True for the name of a bias: blocks.0.attn.b_Q, ln_final.b."""
    last = name.rpartition(".")[2]
    return last == "b" or last.startswith("b_")


def misfit(cfg: GPTConfig, own: Iterable[str], given: Iterable[str]) -> str:
    """A sentence that compares the names `given` in a checkpoint with the model's `own` names: the
    missing names, the unknown names, the likely reason and a remedy; "" if all are equal."""
    own, given = set(own), set(given)
    lacking, beside = own - given, given - own
    parts = [f"it lacks {sorted(lacking)}"] if lacking else []
    parts += [f"the model has no {sorted(beside)}"] if beside else []
    return "; ".join([" and ".join(parts), *_reasons(cfg, own, given)]) if parts else ""


def _reasons(cfg: GPTConfig, own: set[str], given: set[str]) -> list[str]:
    lacking, beside = own - given, given - own
    if lacking and {_bare(name) for name in given} >= own:
        return ["their names begin with _orig_mod. or module., of torch.compile or "
                "DistributedDataParallel: remove these prefixes"]  # fmt: skip
    reasons, kind = [], str(cfg.normalization_type)
    gains = {name for name in own if name.split(".")[-2] in ("ln1", "ln2", "ln_final")}
    if gains and gains <= lacking and not kind.endswith("Pre"):
        reasons.append(f"it has no gains of norms: if they are folded into the weights, the "
                       f"config needs normalization_type={kind + 'Pre'!r}")  # fmt: skip
    if any(map(is_bias, lacking - gains)):
        reasons.append(
            "from_state_dict(..., zero_biases=True) sets the missing biases to 0"
            if any(map(is_bias, given - gains))
            else "it has no biases: the config needs bias=False"
        )
    if not cfg.bias and any(map(is_bias, beside)):
        reasons.append("it has biases: the config needs bias=True, and if some are missing, "
                       "from_state_dict(..., zero_biases=True)")  # fmt: skip
    elif beside and not lacking:
        reasons.append("remove the names that the model lacks")
    return reasons


def _bare(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name.replace("_orig_mod.", "").removeprefix("module.")
