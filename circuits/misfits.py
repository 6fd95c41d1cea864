"""Why the names of a checkpoint are not those of a model, in words, and names without wrappers."""

from collections.abc import Iterable, Mapping

from torch import Tensor

from circuits.config import GPTConfig

Weights = Mapping[str, Tensor]


def unwrapped(weights: Weights) -> Weights:
    """Weights by the names that they had before torch.compile and DistributedDataParallel put
    `_orig_mod.` and `module.` in front; as they are where two would then have one name."""
    names = {name: _bare(name) for name in weights}
    if len(set(names.values())) < len(names):
        return weights
    return {names[name]: weight for name, weight in weights.items()}


def is_bias(name: str) -> bool:
    """True for the name of a bias: blocks.0.attn.b_Q, ln_final.b."""
    last = name.rpartition(".")[2]
    return last == "b" or last.startswith("b_")


def words(cfg: GPTConfig, own: Iterable[str], given: Iterable[str]) -> str:
    """What a checkpoint with the names `given` lacks of a model's `own`, what it has beside, the
    likely reason, and what to do; "" where all names are the same."""
    own, given = set(own), set(given)
    lacking, beside = own - given, given - own
    parts = [f"it lacks {sorted(lacking)}"] if lacking else []
    parts += [f"the model has no {sorted(beside)}"] if beside else []
    return "; ".join([" and ".join(parts), *_reasons(cfg, own, given)]) if parts else ""


def _reasons(cfg: GPTConfig, own: set[str], given: set[str]) -> list[str]:
    lacking, beside = own - given, given - own
    if lacking and {_bare(name) for name in given} >= own:
        return ["their names begin with _orig_mod. or module., of torch.compile or "
                "DistributedDataParallel: take these off"]  # fmt: skip
    reasons, kind = [], str(cfg.normalization_type)
    gains = {name for name in own if name.split(".")[-2] in ("ln1", "ln2", "ln_final")}
    if gains and gains <= lacking and not kind.endswith("Pre"):
        reasons.append(f"it has no gains of norms: where they are folded into the weights, the "
                       f"config wants normalization_type={kind + 'Pre'!r}")  # fmt: skip
    if any(map(is_bias, lacking - gains)):
        reasons.append(
            "from_state_dict(..., zero_biases=True) takes the biases that are not there for 0"
            if any(map(is_bias, given - gains))
            else "it has no biases: the config wants bias=False"
        )
    if not cfg.bias and any(map(is_bias, beside)):
        reasons.append("it has biases: the config wants bias=True, and where some are not there, "
                       "from_state_dict(..., zero_biases=True)")  # fmt: skip
    elif beside and not lacking:
        reasons.append("take out what is no part of the model")
    return reasons


def _bare(name: str) -> str:
    while name.startswith("module."):
        name = name.removeprefix("module.").removeprefix("_orig_mod.")
    return name.replace("_orig_mod.", "").removeprefix("module.")
