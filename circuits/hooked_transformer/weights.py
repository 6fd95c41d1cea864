"""HookedTransformer's names for what weights are and do."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from circuits.hooked_transformer.matrices import FactoredMatrix
from circuits.matrices import at_least_single
from circuits.model import GPT, Head, d_mlp


class WeightsAsBefore(GPT):
    """HookedTransformer's further names for weights; a bias that is not there is 0."""

    @property
    def W_E_pos(self) -> Float[Tensor, "d_vocab_and_n_ctx d_model"]:
        """W_E, and W_pos below it."""
        return torch.cat([self.W_E, self.W_pos])

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        """Biases of queries."""
        return self._biases("attn", "b_Q", self.cfg.n_heads, self.cfg.d_head)

    @property
    def b_K(self) -> Float[Tensor, "layer head d_head"]:
        """Biases of keys."""
        return self._biases("attn", "b_K", self.cfg.n_heads, self.cfg.d_head)

    @property
    def b_V(self) -> Float[Tensor, "layer head d_head"]:
        """Biases of values."""
        return self._biases("attn", "b_V", self.cfg.n_heads, self.cfg.d_head)

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        """Biases of what a layer's heads write."""
        return self._biases("attn", "b_O", self.cfg.d_model)

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        """Biases of neurons; ValueError for an attention-only model."""
        return self._biases("mlp", "b_in", d_mlp(self.cfg))

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        """Biases of what MLPs write; ValueError for an attention-only model."""
        d_mlp(self.cfg)  # refuses models without
        return self._biases("mlp", "b_out", self.cfg.d_model)

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        """Biases of logits."""
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
        """||W_OV M|| / (||W_OV|| ||M||) of every head with every later one, and 0 where the
        writer's layer is not the earlier one. M is W_QK (Q), W_QK^T (K) or W_OV (V).

        From the matrices alone: `circuits.composition.scores` folds norms into them and has a
        baseline. Of an outer factor only R of its QR decomposition matters for the norm.
        """
        W_Q, W_K, W_V, W_O = map(at_least_single, (self.W_Q, self.W_K, self.W_V, self.W_O))
        ways = {"Q": (W_Q, W_K.mT), "K": (W_K, W_Q.mT), "V": (W_V, W_O)}
        if mode not in ways:
            raise ValueError(f"mode={mode!r}; choose Q, K or V")
        inner, outer = ways[mode]
        writer = torch.linalg.qr(W_V).R @ W_O
        reader = inner @ torch.linalg.qr(outer.mT).R.mT
        both = einsum(writer, reader, "wl w e d, rl r d f -> wl w rl r e f")
        size = einsum(_norm(writer), _norm(reader), "wl w, rl r -> wl w rl r")
        layer = torch.arange(self.cfg.n_layers, device=size.device)
        earlier = (layer[:, None] < layer)[:, None, :, None]
        return (_norm(both) / size).where(earlier, 0)

    def _biases(self, part: str, name: str, *shape: int) -> Tensor:
        zeros = self.W_E.new_zeros(shape)
        given = [getattr(getattr(block, part), name) for block in self.blocks]
        rows = [zeros if bias is None else bias for bias in given]
        return torch.stack(rows) if rows else self.W_E.new_zeros(0, *shape)


def _norm(W: Float[Tensor, "*lead _ _"]) -> Float[Tensor, "*lead"]:
    return torch.linalg.matrix_norm(W)
