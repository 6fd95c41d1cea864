"""HookedTransformer's names for weights, circuits and composition scores."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.hooked_transformer.matrices import FactoredMatrix
from circuits.model import GPT, Head, d_mlp


def _biases(part: str, name: str, *sizes: str) -> property:
    """The biases of this name in every layer, stacked; 0 for a bias that does not exist. ValueError
    for biases of MLPs in an attention-only model."""

    def stacked(self: GPT) -> Tensor:
        if part == "mlp":
            d_mlp(self.cfg)  # refuses models without
        zeros = self.W_E.new_zeros([getattr(self.cfg, size) for size in sizes])
        given = [getattr(getattr(block, part), name) for block in self.blocks]
        rows = [zeros if bias is None else bias for bias in given]
        return torch.stack(rows) if rows else zeros.new_zeros(0, *zeros.shape)

    return property(stacked, doc=f"The {name} of every layer, stacked; 0 where there is none.")


class WeightsAsBefore(GPT):
    """HookedTransformer's other names for weights; a bias that does not exist is 0."""

    @property
    def W_E_pos(self) -> Float[Tensor, "d_vocab_and_n_ctx d_model"]:
        """W_E and W_pos, stacked along the rows."""
        return torch.cat([self.W_E, self.W_pos])

    b_Q, b_K, b_V = (_biases("attn", f"b_{letter}", "n_heads", "d_head") for letter in "QKV")
    b_O = _biases("attn", "b_O", "d_model")
    b_in, b_out = _biases("mlp", "b_in", "d_mlp"), _biases("mlp", "b_out", "d_model")

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """The biases of the logits; 0 without biases."""
        b_U = self.unembed.b_U
        return self.W_U.new_zeros(self.W_U.shape[1]) if b_U is None else b_U

    @property
    def QK(self) -> FactoredMatrix:
        """W_Q W_K^T per layer and head, without norm and scale."""
        return FactoredMatrix(self.W_Q, self.W_K.mT)

    @property
    def OV(self) -> FactoredMatrix:
        """W_V W_O per layer and head, without norm."""
        return FactoredMatrix(self.W_V, self.W_O)

    def all_head_labels(self) -> list[str]:
        """L0H0, L0H1, ... in the order of layers and heads."""
        n, heads = self.cfg.n_layers, range(self.cfg.n_heads)
        return [str(Head(layer, head)) for layer in range(n) for head in heads]

    def all_composition_scores(
        self, mode: str
    ) -> Float[Tensor, "writer_layer writer reader_layer reader"]:
        """||W_OV M|| / (||W_OV|| ||M||) of every head (writer) with every head of a later layer
        (reader), else 0. M is the reader's W_QK (Q), W_QK^T (K) or W_OV (V).

        `circuits.composition.scores` also folds norms into the matrices, has a baseline, and reads
        rotary heads at any offset. Here they are read at offset 0, as TransformerLens does.
        """
        ways = {"Q": self.QK, "K": self.QK.T, "V": self.OV}
        if mode not in ways:
            raise ValueError(f"mode={mode!r}; choose Q, K or V")
        writers, readers = self.OV[:, :, None, None], ways[mode]
        scores = (writers @ readers).norm() / (writers.norm() * readers.norm())
        layer = torch.arange(self.cfg.n_layers, device=scores.device)
        earlier = (layer[:, None] < layer)[:, None, :, None]
        return scores.where(earlier, 0)
