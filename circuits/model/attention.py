"""Attention: each head chooses source positions and moves information from them. Also the masks."""

import math

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float
from torch import Tensor, nn

from circuits.hooks import HookPoint
from circuits.model.config import GPTConfig
from circuits.model.kv_cache import Heads, LayerPast, Sources
from circuits.model.layers import HeadsOrResid, Resid, bias
from circuits.model.rotary import Rotary, Rows

Seen = Bool[Tensor, "#batch 1 dest src"]
"True where a destination sees a source; None for the causal triangle."
SHORT = 16
"""Below this number of positions torch's causal kernel on CPUs turns rows of NaN scores into 0.
With the triangle as a mask it gives NaN, as the formula does."""
SOFTMAX = F.softmax
"torch's own softmax. If a tool replaces F.softmax (gim-explain), the heads use the replacement."


class Attention(nn.Module):
    """The heads of a layer. Q and K decide where a head attends, V and O what it moves."""

    def __init__(self, cfg: GPTConfig, rotary: Rotary | None = None) -> None:
        super().__init__()
        heads, d_model, d_head = cfg.n_heads, cfg.d_model, cfg.d_head
        # Stored as [head d_head d_model], so that all heads are one matrix product without a copy.
        self.W_Q = nn.Parameter(torch.empty(heads, d_head, d_model).mT)
        self.W_K = nn.Parameter(torch.empty(heads, d_head, d_model).mT)
        self.W_V = nn.Parameter(torch.empty(heads, d_head, d_model).mT)
        self.W_O = nn.Parameter(torch.empty(heads, d_head, d_model))
        self.b_Q, self.b_K, self.b_V = (bias(cfg, heads, d_head) for _ in range(3))
        self.b_O = bias(cfg, d_model)
        self.alpha = nn.Parameter(torch.zeros(heads)) if cfg.smeared_keys else None
        self.rotary = rotary  # one for all layers; None unless positions are rotary
        self.scale = cfg.attn_scale or math.sqrt(d_head)
        self.hook_q = HookPoint()  # [batch pos head d_head]
        self.hook_k = HookPoint()  # [batch pos head d_head], after smearing
        self.hook_v = HookPoint()  # [batch pos head d_head]
        if rotary is not None:
            self.hook_rot_q = HookPoint()  # [batch pos head d_head], as scores read it
            self.hook_rot_k = HookPoint()  # [batch pos head d_head]
        self.hook_attn_scores = HookPoint(pos_dim=2)  # [batch head dest src], -inf where unseen
        self.hook_pattern = HookPoint(pos_dim=2)  # [batch head dest src]
        self.hook_z = HookPoint(shared=True)  # [batch pos head d_head], also kept by autograd
        self.hook_result = HookPoint(per_head=True)  # [batch pos head d_model]

    def forward(
        self,
        q_input: HeadsOrResid,
        k_input: HeadsOrResid,
        v_input: HeadsOrResid,
        past: LayerPast | None = None,
        seen: Seen | None = None,
        rows: Rows | None = None,
    ) -> Resid:
        q = self.hook_q(_per_head(q_input, self.W_Q, self.b_Q))
        k = self.hook_k(self._smeared(_per_head(k_input, self.W_K, self.b_K), past))
        v = self.hook_v(_per_head(v_input, self.W_V, self.b_V))
        if self.rotary is not None:
            q, k = self.hook_rot_q(self.rotary(q, rows)), self.hook_rot_k(self.rotary(k, rows))
        k, v = (k, v) if past is None else past.extended(k, v)

        replaced = F.softmax is not SOFTMAX
        if replaced or self.hook_attn_scores.has_active_hooks or self.hook_pattern.has_active_hooks:
            attn_scores = self.hook_attn_scores(masked_scores(q, k, self.scale, seen))
            pattern = self.hook_pattern(attn_scores.softmax(-1))
            z = (pattern @ v.transpose(1, 2)).transpose(1, 2)
        else:
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            z = F.scaled_dot_product_attention(
                q, k, v, seen, is_causal=seen is None, scale=1 / self.scale
            ).transpose(1, 2)
        return self._written(self.hook_z(z))

    def _smeared(self, k: Heads, past: LayerPast | None) -> Heads:
        """s k_j + (1 - s) k_(j-1) with s = sigmoid(alpha) per head; the first key stays."""
        if self.alpha is None:
            return k
        s, n = self.alpha.sigmoid()[:, None], k.shape[1]
        k = k if past is None else past.preceded(k)
        return torch.cat([k[:, :1], s * k[:, 1:] + (1 - s) * k[:, :-1]], dim=1)[:, -n:]

    def _written(self, z: Heads) -> Resid:
        if not self.hook_result.has_active_hooks:
            return F.linear(z.flatten(2), self.W_O.flatten(0, 1).mT, self.b_O)
        result = einsum(
            z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model"
        )
        total = self.hook_result(result).sum(2)
        return total if self.b_O is None else total + self.b_O


def _per_head(
    x: HeadsOrResid, W: Float[Tensor, "head d_model d_head"], b: Float[Tensor, "head d_head"] | None
) -> Heads:
    """x @ W + b for every head. One product suffices if all heads share x."""
    if x.ndim == 4:
        out = einsum(x, W, "batch pos head d_model, head d_model d_head -> batch pos head d_head")
        return out if b is None else out + b
    out = F.linear(x, W.mT.flatten(0, 1), None if b is None else b.flatten())
    return out.unflatten(-1, (W.shape[0], W.shape[2]))


def masked_scores(
    q: Heads, k: Sources, scale: float, seen: Seen | None = None
) -> Float[Tensor, "batch head dest src"]:
    """q . k / scale, or -inf where the destination does not see the source."""
    q, k = q.transpose(1, 2), k.transpose(1, 2)
    seen = triangle(q.shape[2], k.shape[2], q.device) if seen is None else seen
    return ((q / scale) @ k.mT).masked_fill_(~seen, -math.inf)


def visible(
    cfg: GPTConfig,
    n: int,
    total: int,
    real: Bool[Tensor, "batch src"] | None = None,
    device: torch.device | None = None,
) -> Seen | None:
    """The mask of the last `n` of `total` positions. A position sees the `real` positions (by
    default all) that the attention direction allows. It always sees itself, so that no row of a pad
    is empty."""
    short = n < SHORT and device is not None and device.type == "cpu"
    if real is None and cfg.causal and n == total and not short:
        return None
    seen = triangle(n, total, device)[None, None]
    seen = seen if cfg.causal else torch.ones_like(seen)
    if real is None:
        return seen
    if cfg.smeared_keys and (real[:, 1:] & ~real[:, :-1]).any():
        raise ValueError("smeared_keys mix each key with the key before it, and attention_mask has "
                         "tokens after pads: pad on the right")  # fmt: skip
    itself = seen.new_ones(n, total).tril(total - n).triu(total - n)
    return seen & real[:, None, None] | itself


def triangle(n: int, total: int, device: torch.device | None = None) -> Bool[Tensor, "dest src"]:
    """True where the source is not after the destination, for the last `n` of `total` positions."""
    return torch.ones(n, total, dtype=torch.bool, device=device).tril(total - n)
