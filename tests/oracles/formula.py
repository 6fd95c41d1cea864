"""The forward pass written out without any fusing, as an oracle for every hook point.

Independent of circuits.model: it takes only the weights. `edits` maps a hook name to a function
that replaces the activation there.
"""

import math

import torch

ACT = {
    "relu": torch.relu,
    "silu": lambda x: x * torch.sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_new": lambda x: (
        0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    ),
    "solu": lambda x: x * torch.exp(x) / torch.exp(x).sum(-1, keepdim=True),
}


def formula(model, tokens, edits=None):
    """Every activation by hook name, and the logits; float64."""
    cfg, w, seen = model.cfg, dict(model.state_dict()), {}
    edits = edits or {}

    def at(name, value, keep=True):
        value = edits[name](value, hook=None) if name in edits else value
        if keep and name not in seen:
            seen[name] = value
        return value

    def norm(place, x, keep=True, kind=cfg.normalization_type):
        if kind is None:
            return x
        if kind.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        scale = at(f"{place}.hook_scale", torch.sqrt((x**2).mean(-1, keepdim=True) + cfg.eps), keep)
        x = at(f"{place}.hook_normalized", x / scale, keep)
        return x * w.get(f"{place}.w", 1.0) + w.get(f"{place}.b", 0.0)

    tokens = at("hook_tokens", tokens)
    batch, n = tokens.shape
    resid = at("hook_embed", w["embed.W_E"][tokens])
    shift = torch.zeros(n, cfg.d_model, dtype=resid.dtype)
    if cfg.positional_embedding_type not in ("none", "rotary"):
        pos = at("hook_pos_embed", model.W_pos[:n].expand(batch, n, -1).clone())
        if "shortformer" in cfg.positional_embedding_type:
            shift = pos
        else:
            resid = resid + pos
    for i in range(cfg.n_layers):
        b, a = f"blocks.{i}", f"blocks.{i}.attn"
        resid = at(f"{b}.hook_resid_pre", resid)
        inputs = {}
        for letter in "qkv":
            name = f"{b}.hook_{letter}_input"
            split = at(name, torch.stack([resid] * cfg.n_heads, dim=2))
            place = f"{b}.ln1"
            shared = norm(place, resid)
            heads = [shared] * cfg.n_heads
            if name in edits:  # ln1 sees the shared stream; a split input is normalised on its own
                heads = [norm(place, split[:, :, h], keep=False) for h in range(cfg.n_heads)]
            normed = torch.stack(heads, 2)
            moved = 0 if letter == "v" else shift.unsqueeze(-2)
            inputs[letter] = normed + moved
        q, k, v = (
            torch.einsum("bphd,hde->bphe", inputs[x], w[f"{a}.W_{x.upper()}"])
            + w.get(f"{a}.b_{x.upper()}", 0.0)
            for x in "qkv"
        )
        if cfg.smeared_keys:
            s = 1 / (1 + torch.exp(-w[f"{a}.alpha"]))
            before = torch.cat([k[:, :1], k[:, :-1]], 1)
            k = s[None, None, :, None] * k + (1 - s)[None, None, :, None] * before
        q, k, v = at(f"{a}.hook_q", q), at(f"{a}.hook_k", k), at(f"{a}.hook_v", v)
        if cfg.positional_embedding_type == "rotary":
            q, k = at(f"{a}.hook_rot_q", turned(q, cfg)), at(f"{a}.hook_rot_k", turned(k, cfg))
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / (cfg.attn_scale or math.sqrt(cfg.d_head))
        future = torch.arange(n)[None, :] > torch.arange(n)[:, None]
        if cfg.attention_dir == "causal":
            scores = scores.masked_fill(future, -math.inf)
        scores = at(f"{a}.hook_attn_scores", scores)
        e = torch.exp(scores - scores.amax(-1, keepdim=True))
        pattern = at(f"{a}.hook_pattern", e / e.sum(-1, keepdim=True))
        z = at(f"{a}.hook_z", torch.einsum("bhqk,bkhe->bqhe", pattern, v))
        result = at(f"{a}.hook_result", torch.einsum("bqhe,hed->bqhd", z, w[f"{a}.W_O"]))
        out = at(f"{b}.hook_attn_out", result.sum(2) + w.get(f"{a}.b_O", 0.0))
        before, resid = resid, resid + out
        if not cfg.parallel_attn_mlp:
            before = resid = at(f"{b}.hook_resid_mid", resid)
        if cfg.d_mlp is not None:
            mlp_in = at(f"{b}.hook_mlp_in", before)
            m = f"{b}.mlp"
            read, first = norm(f"{b}.ln2", mlp_in), "gate" if cfg.gated_mlp else "in"
            pre = read @ w[f"{m}.W_{first}"] + w.get(f"{m}.b_{first}", 0.0)
            post = ACT[cfg.act_fn.removesuffix("_ln")](at(f"{m}.hook_pre", pre))
            if cfg.gated_mlp:
                linear = read @ w[f"{m}.W_in"] + w.get(f"{m}.b_in", 0.0)
                post = post * at(f"{m}.hook_pre_linear", linear)
            if cfg.act_fn == "solu_ln":
                post = norm(f"{m}.ln", at(f"{m}.hook_mid", post), kind="LN")
            post = at(f"{m}.hook_post", post)
            mlp_out = at(f"{b}.hook_mlp_out", post @ w[f"{m}.W_out"] + w.get(f"{m}.b_out", 0.0))
            resid = resid + mlp_out
        resid = at(f"{b}.hook_resid_post", resid)
    logits = norm("ln_final", resid) @ w["unembed.W_U"] + w.get("unembed.b_U", 0.0)
    return Seen(seen, logits)


def turned(x, cfg):
    """Queries or keys, each plane of two dims turned by the angle p base^(-2a / dim) at place p,
    as a product of complex numbers."""
    dim, base = cfg.rotary_dim or cfg.d_head, cfg.rotary_base or 10_000.0
    out = x.clone()
    for a in range(dim // 2):
        one, other = (2 * a, 2 * a + 1) if cfg.rotary_adjacent_pairs else (a, a + dim // 2)
        for p in range(x.shape[1]):
            angle = torch.tensor(p * base ** (-2 * a / dim), dtype=torch.float64)
            z = torch.complex(x[:, p, :, one], x[:, p, :, other]) * torch.exp(1j * angle)
            out[:, p, :, one], out[:, p, :, other] = z.real, z.imag
    return out


class Seen(dict):
    """Activations by hook name; `["logits"]` too, though it is no hook point."""

    def __init__(self, seen, logits):
        super().__init__(seen)
        self.logits = logits

    def __getitem__(self, name):
        return self.logits if name == "logits" else super().__getitem__(name)
