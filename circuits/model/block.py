"""One block of a GPT: heads, then an MLP; each reads the residual stream and adds to it."""

from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from circuits.hooks import HookPoint
from circuits.model.attention import Attention, Seen
from circuits.model.config import GPTConfig
from circuits.model.kv_cache import LayerPast
from circuits.model.layers import HeadsOrResid, Resid, mlp, norm
from circuits.model.rotary import Rotary, Rows

Places = Float[Tensor, "... pos d_model"] | None
"Shortformer positions, added to the inputs of W_Q and W_K; with a batch dim if a hook is attached."


class Block(nn.Module):
    """resid_mid = resid_pre + heads(resid_pre); resid_post = resid_mid + mlp(resid_mid).

    In a parallel block the MLP reads resid_pre too, and there is no hook_resid_mid.
    """

    def __init__(self, cfg: GPTConfig, rotary: Rotary | None = None) -> None:
        super().__init__()
        self.n_heads, self.parallel = cfg.n_heads, cfg.parallel_attn_mlp
        self.ln1 = norm(cfg)
        self.attn = Attention(cfg, rotary)
        self.hook_resid_pre = HookPoint()  # [batch pos d_model]
        # Per head [batch pos head d_model], before ln1 and before positions are added.
        self.hook_q_input = HookPoint(shared=True, per_head=True)
        self.hook_k_input = HookPoint(shared=True, per_head=True)
        self.hook_v_input = HookPoint(shared=True, per_head=True)
        self.hook_attn_out = HookPoint()  # [batch pos d_model], and the same for all below
        self.hook_resid_mid = nn.Identity() if self.parallel else HookPoint()
        if cfg.d_mlp is not None:
            self.ln2 = norm(cfg)
            self.mlp = mlp(cfg, cfg.d_mlp)
            self.hook_mlp_in = HookPoint(shared=True)
            self.hook_mlp_out = HookPoint()
        else:
            self.mlp = None
        self.hook_resid_post = HookPoint()

    def forward(
        self,
        resid: Resid,
        pos: Places,
        past: LayerPast | None = None,
        seen: Seen | None = None,
        rows: Rows | None = None,
    ) -> Resid:
        resid_pre = self.hook_resid_pre(resid)
        attn_out = self.hook_attn_out(self.attn(*self._reads(resid_pre, pos), past, seen, rows))
        resid_mid = self.hook_resid_mid(resid_pre + attn_out)
        if self.mlp is None:
            return self.hook_resid_post(resid_mid)
        read = self.hook_mlp_in(resid_pre if self.parallel else resid_mid)
        mlp_out = self.hook_mlp_out(self.mlp(self.ln2(read)))
        return self.hook_resid_post(resid_mid + mlp_out)

    def _reads(
        self, resid_pre: Resid, pos: Places
    ) -> tuple[HeadsOrResid, HeadsOrResid, HeadsOrResid]:
        """The inputs of W_Q, W_K and W_V; shortformer positions are added to the first two."""
        normed = self.ln1(resid_pre)
        shared = normed if pos is None else normed + pos
        return (
            self._read(self.hook_q_input, resid_pre, pos, shared),
            self._read(self.hook_k_input, resid_pre, pos, shared),
            self._read(self.hook_v_input, resid_pre, None, normed),
        )

    def _read(self, point: HookPoint, resid_pre: Resid, pos: Places, shared: Resid) -> HeadsOrResid:
        """The input that all heads share, or an input for each head if a hook is attached."""
        if not point.has_active_hooks:
            return shared
        per_head = repeat(resid_pre, "batch pos d -> batch pos head d", head=self.n_heads)
        normed = self.ln1(point(per_head))
        return normed if pos is None else normed + pos.unsqueeze(-2)
