"""The layers around attention: embeddings, positions, norms, MLP, unembedding."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuits.hooks import HookPoint
from circuits.model.config import GPTConfig

Resid = Float[Tensor, "batch pos d_model"]
HeadsOrResid = Float[Tensor, "batch pos ... d_model"]
"An input of W_Q, W_K or W_V: shared by the heads, or one per head if a hook is attached there."


def solu(x: Float[Tensor, "*lead d_mlp"]) -> Float[Tensor, "*lead d_mlp"]:
    """x softmax(x). (Elhage et al. 2022, https://transformer-circuits.pub/2022/solu/index.html)"""
    return x * x.softmax(-1)


ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "solu": solu,
    "solu_ln": solu,
}


class Embed(nn.Module):
    """tokens -> W_E[tokens]."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Resid:
        return F.embedding(tokens, self.W_E)


class PosEmbed(nn.Module):
    """Rows of W_pos, learned or sinusoidal: `n` rows from `start` on, or the rows `places`."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        if cfg.sinusoidal:
            self.register_buffer("W_pos", sinusoids(cfg), persistent=False)
        else:
            self.W_pos = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model))

    def forward(
        self, n: int, start: int = 0, places: Int[Tensor, "batch pos"] | None = None
    ) -> Float[Tensor, "*batch pos d_model"]:
        return self.W_pos[start : start + n] if places is None else self.W_pos[places]


def sinusoids(cfg: GPTConfig) -> Float[Tensor, "n_ctx d_model"]:
    """scale * sin(w i) and scale * cos(w i) in turn along d_model, for frequencies w from 1 down to
    1/base (Vaswani et al.)."""
    pair = torch.arange(0, cfg.d_model, 2, dtype=torch.float64) / cfg.d_model
    angle = torch.outer(
        torch.arange(cfg.n_ctx, dtype=torch.float64), (cfg.sinusoid_base or 1e4) ** -pair
    )
    waves = rearrange([angle.sin(), angle.cos()], "two pos pair -> pos (pair two)")
    return ((cfg.sinusoid_scale or 1.0) * waves[:, : cfg.d_model]).float()


class Norm(nn.Module):
    """(x - mean) / sqrt(var + eps) * w + b. RMS types subtract no mean and have no b; Pre types
    have no w and no b.

    hook_normalized sees the quotient, before w and b.
    """

    def __init__(self, cfg: GPTConfig, kind: str, width: int) -> None:
        super().__init__()
        self.centred, self.eps, self.shape = kind.startswith("LN"), cfg.eps, (width,)
        gain = not kind.endswith("Pre")
        self.w = nn.Parameter(torch.ones(width)) if gain else None
        self.b = bias(cfg, width) if gain and self.centred else None
        self.hook_scale = HookPoint()  # [batch pos 1]
        self.hook_normalized = HookPoint()  # [batch pos width]

    def forward(self, x: HeadsOrResid) -> HeadsOrResid:
        if not (self.hook_scale.has_active_hooks or self.hook_normalized.has_active_hooks):
            if self.centred:
                return F.layer_norm(x, self.shape, self.w, self.b, self.eps)
            return F.rms_norm(x, self.shape, self.w, self.eps)
        if self.centred:
            x = x - x.mean(-1, keepdim=True)
        scale = self.hook_scale((x.pow(2).mean(-1, keepdim=True) + self.eps).sqrt())
        normalized = self.hook_normalized(x / scale)
        scaled = normalized if self.w is None else normalized * self.w
        return scaled if self.b is None else scaled + self.b


def norm(cfg: GPTConfig) -> nn.Module:
    """The config's norm, or the identity if the config has none."""
    kind = cfg.normalization_type
    return nn.Identity() if kind is None else Norm(cfg, kind, cfg.d_model)


class MLP(nn.Module):
    """act(x W_in + b_in) W_out + b_out; with solu_ln a norm comes before W_out."""

    def __init__(self, cfg: GPTConfig, d_mlp: int) -> None:
        super().__init__()
        self.W_in = nn.Parameter(torch.empty(cfg.d_model, d_mlp))
        self.W_out = nn.Parameter(torch.empty(d_mlp, cfg.d_model))
        self.b_in, self.b_out = bias(cfg, d_mlp), bias(cfg, cfg.d_model)
        self.act = ACTIVATIONS[str(cfg.act_fn)]
        self.hook_pre = HookPoint()  # [batch pos d_mlp], as are the others
        if cfg.act_fn == "solu_ln":
            self.hook_mid = HookPoint()
            self.ln = Norm(cfg, "LN" if cfg.normalization_type == "LN" else "LNPre", d_mlp)
        else:
            self.hook_mid = self.ln = nn.Identity()
        self.hook_post = HookPoint()

    def forward(self, x: Resid) -> Resid:
        pre = self.hook_pre(F.linear(x, self.W_in.mT, self.b_in))
        post = self.hook_post(self.ln(self.hook_mid(self.act(pre))))
        return F.linear(post, self.W_out.mT, self.b_out)


class GatedMLP(nn.Module):
    """(act(x W_gate + b_gate) * (x W_in + b_in)) W_out + b_out. hook_pre sees the gate before its
    activation, hook_pre_linear the second read, and hook_post their product."""

    def __init__(self, cfg: GPTConfig, d_mlp: int) -> None:
        super().__init__()
        self.W_gate = nn.Parameter(torch.empty(cfg.d_model, d_mlp))
        self.W_in = nn.Parameter(torch.empty(cfg.d_model, d_mlp))
        self.W_out = nn.Parameter(torch.empty(d_mlp, cfg.d_model))
        self.b_gate, self.b_in, self.b_out = (bias(cfg, n) for n in (d_mlp, d_mlp, cfg.d_model))
        self.act = ACTIVATIONS[str(cfg.act_fn)]
        self.hook_pre = HookPoint()  # [batch pos d_mlp], as are the others
        self.hook_pre_linear = HookPoint()
        self.hook_post = HookPoint()

    def forward(self, x: Resid) -> Resid:
        pre = self.hook_pre(F.linear(x, self.W_gate.mT, self.b_gate))
        pre_linear = self.hook_pre_linear(F.linear(x, self.W_in.mT, self.b_in))
        post = self.hook_post(self.act(pre) * pre_linear)
        return F.linear(post, self.W_out.mT, self.b_out)


def mlp(cfg: GPTConfig, d_mlp: int) -> nn.Module:
    """The config's MLP, with or without a gate."""
    return GatedMLP(cfg, d_mlp) if cfg.gated_mlp else MLP(cfg, d_mlp)


class Unembed(nn.Module):
    """x W_U + b_U."""

    def __init__(self, cfg: GPTConfig) -> None:
        super().__init__()
        self.W_U = nn.Parameter(torch.empty(cfg.d_model, cfg.d_vocab_out or cfg.d_vocab))
        self.b_U = bias(cfg, cfg.d_vocab_out or cfg.d_vocab)

    def forward(self, x: Resid) -> Float[Tensor, "batch pos d_vocab"]:
        return F.linear(x, self.W_U.mT, self.b_U)


def bias(cfg: GPTConfig, *shape: int) -> nn.Parameter | None:
    """A bias of zeros, or None if the config has no biases."""
    return nn.Parameter(torch.zeros(shape)) if cfg.bias else None
