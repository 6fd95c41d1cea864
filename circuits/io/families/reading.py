"""The parts of a family's table, and the functions that read a model of transformers with it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from circuits.model import GPTConfig

Weights = dict[str, Tensor]
Split = Callable[[Tensor, GPTConfig], Sequence[Tensor]]
"A fused weight or bias, its outputs in the first dim -> the tensors of its parts."


def always(theirs: Any) -> bool:
    """True for any config."""
    return True


@dataclass(frozen=True)
class Fused:
    """A module of theirs that holds several of our parts in one tensor."""

    module: str
    split: Split


@dataclass(frozen=True)
class Family:
    """One architecture of transformers as data. A part is named after its weights: attn.Q has W_Q
    and b_Q, unembed.U has W_U and b_U, and ln1 has w and b."""

    fields: Mapping[str, str | Callable[[Any], Any]]
    "Fields of a HookedTransformerConfig -> an attribute, or a function, of their config."
    stem: Mapping[str, str]
    "The parts outside of the blocks -> their modules; 'this|that' is the first that exists."
    block: str
    "The place of a block among their modules, with {} for its number."
    parts: Mapping[str, str | Fused]
    "The parts of a block -> their modules in it. 'attn.Q attn.K attn.V' are fused in this order."
    biased: Callable[[Any], bool] = always
    "Whether the GPT has biases; those that their model lacks are 0."
    inputs_first: bool = False
    "True if the matrices of their blocks are [in out] as in GPT-2, False if they are [out in]."


def fields_of(family: Family, theirs: Any) -> dict[str, Any]:
    """The fields of a HookedTransformerConfig by the config of a model of transformers."""
    return {
        ours: getattr(theirs, there) if isinstance(there, str) else there(theirs)
        for ours, there in family.fields.items()
    }


def weights_of(family: Family, theirs: Mapping[str, Tensor], cfg: GPTConfig) -> Weights:
    """Their weights by a GPT's names, as views. Biases that their model lacks are left out."""
    ours: Weights = {}
    for part, module in family.stem.items():
        ours |= _named(part, _of_module(theirs, module), cfg)
    for layer in range(cfg.n_layers):
        place = family.block.format(layer)
        for part, source in family.parts.items():
            for one, held in _split(part, source, place, theirs, family, cfg).items():
                named = _named(one, held, cfg)
                ours |= {f"blocks.{layer}.{name}": weight for name, weight in named.items()}
    return ours


def _split(
    part: str, source: str | Fused, place: str, theirs: Mapping[str, Tensor], family: Family,
    cfg: GPTConfig,
) -> dict[str, Weights]:  # fmt: skip
    """The weight and bias of each of our parts that one module of a block holds."""
    module = source if isinstance(source, str) else source.module
    held = _of_module(theirs, f"{place}.{module}")
    if family.inputs_first and not part.startswith("ln"):
        held["weight"] = held["weight"].T
    if isinstance(source, str):
        return {part: held}
    pieces = {kind: source.split(tensor, cfg) for kind, tensor in held.items()}
    return {one: {kind: several[i] for kind, several in pieces.items()}
            for i, one in enumerate(part.split())}  # fmt: skip


def _of_module(theirs: Mapping[str, Tensor], module: str) -> Weights:
    """The weight and, if it has one, the bias of a module."""
    names = module.split("|")
    there = next((name for name in names if f"{name}.weight" in theirs), names[0])
    kept = {kind: theirs.get(f"{there}.{kind}") for kind in ("weight", "bias")}
    if kept["weight"] is None:
        raise ValueError(f"the other model has no weight {there}.weight")
    return {kind: tensor for kind, tensor in kept.items() if tensor is not None}


def _named(part: str, held: Weights, cfg: GPTConfig) -> Weights:
    """A weight [out in] and a bias of theirs, in our shapes and by our names."""
    place, _, what = part.partition(".")
    if not what:  # a norm
        return {f"{place}.{'w' if kind == 'weight' else 'b'}": it for kind, it in held.items()}
    W, b = held["weight"], held.get("bias")
    if what in ("Q", "K", "V"):  # [head d_model d_head], [head d_head]
        W = W.unflatten(0, (-1, cfg.d_head)).mT
        b = None if b is None else b.unflatten(0, (-1, cfg.d_head))
    elif what == "O":  # [head d_head d_model]
        W = W.T.unflatten(0, (cfg.n_heads, cfg.d_head))
    elif what not in ("E", "pos"):  # [in out]; embeddings already are
        W = W.T
    return {f"{place}.W_{what}": W, **({} if b is None else {f"{place}.b_{what}": b})}


def rope(theirs: Any, name: str, default: float) -> float:
    """A parameter of their rotary positions. ValueError for angles that are not multiples of the
    position, as those of YaRN."""
    parameters = theirs.rope_parameters or {}
    kind = parameters.get("rope_type", "default")
    if kind != "default":
        raise ValueError(f"rope_parameters={parameters!r} cannot be expressed: rope_type must be "
                         f"'default'")  # fmt: skip
    return parameters.get(name, default)
