"""Stacked: the weights of all blocks under the names the field uses, stacked by layer; and why the
names in a checkpoint are not those of a model."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuits.matrices import FactoredMatrix
from circuits.model.config import GPTConfig

LayerHead = Float[Tensor, "layer head d_model d_head"]


class Stacked(nn.Module):
    """Properties of a GPT that name its matrices. They are computed from the parameters at each
    use and never stale; to edit or differentiate, take the parameter: `blocks[1].attn.W_Q`."""

    cfg: GPTConfig
    embed: Any
    pos_embed: Any
    blocks: Any
    unembed: Any

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        """Embedding of each token."""
        return self.embed.W_E

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        """Embedding of each position; ValueError where the model has none."""
        if self.cfg.positional_embedding_type == "none":
            raise ValueError("the model has no positions: positional_embedding_type is 'none'")
        return self.pos_embed.W_pos

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        """Unembedding to logits."""
        return self.unembed.W_U

    @property
    def W_Q(self) -> LayerHead:
        """Query weights."""
        return self._stacked("attn", "W_Q", self.cfg.n_heads, self.cfg.d_model, self.cfg.d_head)

    @property
    def W_K(self) -> LayerHead:
        """Key weights."""
        return self._stacked("attn", "W_K", self.cfg.n_heads, self.cfg.d_model, self.cfg.d_head)

    @property
    def W_V(self) -> LayerHead:
        """Value weights."""
        return self._stacked("attn", "W_V", self.cfg.n_heads, self.cfg.d_model, self.cfg.d_head)

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        """Output weights."""
        return self._stacked("attn", "W_O", self.cfg.n_heads, self.cfg.d_head, self.cfg.d_model)

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        """MLP input weights; ValueError for an attention-only model."""
        return self._stacked("mlp", "W_in", self.cfg.d_model, self._d_mlp)

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        """MLP output weights; ValueError for an attention-only model."""
        return self._stacked("mlp", "W_out", self._d_mlp, self.cfg.d_model)

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T per layer and head, d_model x d_model; `algebra.QK` folds norm and scale in."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O per layer and head, d_model x d_model; `algebra.OV` folds the norm in."""
        return FactoredMatrix(self.W_V, self.W_O)

    def accumulated_bias(
        self, layer: int, mlp_input: bool = False, include_mlp_biases: bool = True
    ) -> Float[Tensor, " d_model"]:
        """The sum of the biases that were written to the stream before block `layer`: every b_O,
        that of this block too if `mlp_input`, and every b_out, without which only those."""
        if not 0 <= layer <= self.cfg.n_layers - mlp_input:
            raise ValueError(f"layer {layer} does not exist: the model has {self.cfg.n_layers}")
        written = [block.attn.b_O for block in self.blocks[: layer + mlp_input]]
        if include_mlp_biases and not self.cfg.attn_only:
            written += [block.mlp.b_out for block in self.blocks[:layer]]
        zero = self.unembed.W_U.new_zeros(self.cfg.d_model)
        return torch.stack([zero, *(bias for bias in written if bias is not None)]).sum(0)

    @property
    def _d_mlp(self) -> int:
        if self.cfg.d_mlp is None:
            raise ValueError("the model is attention-only: it has no W_in and W_out")
        return self.cfg.d_mlp

    def _stacked(self, part: str, name: str, *shape: int) -> Tensor:
        weights = [getattr(getattr(block, part), name) for block in self.blocks]
        return torch.stack(weights) if weights else self.unembed.W_U.new_empty(0, *shape)


def unwrapped(weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
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


def misfit(cfg: GPTConfig, own: Iterable[str], given: Iterable[str]) -> str:
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
