"""The same circuit among distractors, in another basis of the stream, or of every head."""

import math
from dataclasses import KW_ONLY, asdict, dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ground_truth.k_composition import Induction
from circuits.ground_truth.scaffold import Edges
from circuits.model import GPT, Attention

READS = ("W_Q", "W_K", "W_V", "W_gate", "W_in", "W_U")
"Parameters that read the stream: their second last dim is d_model."
WRITES = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")
"Parameters that write to the stream: their last dim is d_model."


@dataclass(frozen=True)
class InductionAmongDistractors(Induction):
    """`Induction` with random heads, the distractors, beside its head in each layer; float64.

    A distractor has Gaussian weights. The norms of its QK and OV circuits equal the norms of the
    true head in its layer. It reads all of the stream and writes only to `place`. No true head of
    layer 1 and no logit reads `place`, so distractors change neither the circuit nor the logits. A
    distractor finds a copy by chance in 1 of V - 1 cases: a detector with a threshold needs a large
    V. ValueError without distractors.

    The answers of `Induction` hold for the heads `previous_head` and `induction_head`, each a
    (layer, head).
    """

    _: KW_ONLY
    distractors: int = 4
    seed: int = 0

    induction_head = (1, 0)
    "The first head of layer 1."
    effect = 0.0
    "The change of any logit when distractors are ablated."

    def __post_init__(self):
        super().__post_init__()
        count = self.distractors
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"distractors={count!r}: expected a whole number >= 1, per layer")

    @cached_property
    def model(self) -> GPT:
        own = {each.name: getattr(self, each.name) for each in fields(Induction)}
        circuit = Induction(**own).model
        model = self.blank(**{**asdict(circuit.cfg), "n_heads": 1 + self.distractors})
        model.embed.W_E.copy_(circuit.W_E)
        model.pos_embed.W_pos.copy_(circuit.W_pos)
        model.unembed.W_U.copy_(circuit.W_U)
        generator = torch.Generator().manual_seed(self.seed)
        heads = (self.previous_head[1], self.induction_head[1])
        for block, alone, head in zip(model.blocks, circuit.blocks, heads, strict=True):
            _fill(block.attn, alone.attn, place=3 * self.d_vocab, generator=generator)
            for name in ("W_Q", "W_K", "W_V", "W_O"):
                getattr(block.attn, name)[head] = getattr(alone.attn, name)[0]
        return model

    @property
    def previous_head(self) -> tuple[int, int]:
        """The last head of layer 0."""
        return 0, self.distractors

    @property
    def edges(self) -> Edges:
        """The edges of `Induction`, with the names of its heads in this model."""
        return tuple(
            (
                sender.replace("L0H0", f"L0H{self.distractors}"),
                receiver.replace("L0H0", f"L0H{self.distractors}"),
            )
            for sender, receiver in Induction.edges
        )

    @property
    def chance_composition(self) -> float:
        """1 / sqrt(d_model): the mean composition score of a head of layer 0 with a distractor of
        layer 1."""
        return 1 / math.sqrt(3 * self.d_vocab + self.n_ctx)


def _fill(attn: Attention, like: Attention, *, place: int, generator: torch.Generator) -> None:
    """Make every head a distractor with the norms of `like`'s head 0, writing from dim `place`."""
    for weight in (attn.W_Q, attn.W_K, attn.W_V, attn.W_O):
        weight.normal_(generator=generator)
    attn.W_O[:, :, :place] = 0
    norm_QK, norm_OV = (like.W_Q[0] @ like.W_K[0].T).norm(), (like.W_V[0] @ like.W_O[0]).norm()
    attn.W_Q.mul_(norm_QK / (attn.W_Q @ attn.W_K.mT).norm(dim=(1, 2), keepdim=True))
    attn.W_O.mul_(norm_OV / (attn.W_V @ attn.W_O).norm(dim=(1, 2), keepdim=True))


def rotated(model: GPT, seed: int = 0) -> GPT:
    """The same function of tokens with its residual stream rotated by a random orthogonal R.

    Weights that write to the stream are multiplied by R, weights that read it by R^T. Logits,
    patterns and composition scores stay equal; single dims of the stream change. Positional
    embeddings are rotated too, also in a shortformer model, where W_Q and W_K read them. Rotated
    sinusoids become learned positions. The result has the model's dtype, eval mode and no
    gradients. ValueError for a norm that needs one basis: LN and LNPre subtract the mean over
    dims, RMS has a gain for each dim.
    """
    cfg = model.cfg
    if cfg.normalization_type not in (None, "RMSPre"):
        raise ValueError(
            f"normalization_type={cfg.normalization_type!r} works in one basis of the stream; "
            f"rotated() takes only a model with None or 'RMSPre'"
        )
    state = model.state_dict()
    if cfg.sinusoidal:
        learned = "shortformer" if cfg.shortformer else "standard"
        cfg = replace(
            cfg, positional_embedding_type=learned, sinusoid_base=None, sinusoid_scale=None
        )
        state["pos_embed.W_pos"] = model.W_pos
    turned = _copy(GPT(cfg, model.tokenizer), state, like=model.W_E)
    R = orthogonal(cfg.d_model, torch.Generator().manual_seed(seed)).to(model.W_E)
    for name, weight in turned.named_parameters():
        kind = name.rpartition(".")[2]
        if kind in WRITES:
            weight.copy_(weight @ R)
        elif kind in READS:
            weight.copy_(R.T @ weight)
    return turned


def regauged(model: GPT, seed: int = 0) -> GPT:
    """The same function of tokens with every head in a random basis of d_head.

    (W_Q, W_K) becomes (W_Q M, W_K M^-T) and (W_V, W_O) becomes (W_V N, N^-1 W_O), and biases change
    alike. W_QK and W_OV stay equal; single dims of q, k, v and z change. With rotary positions M
    turns and stretches each plane and mixes no planes, so that it commutes with every R. The result
    has the model's dtype, eval mode and no gradients.
    """
    changed = _copy(GPT(model.cfg, model.tokenizer), model.state_dict(), like=model.W_E)
    generator = torch.Generator().manual_seed(seed)
    for block in changed.blocks:
        attn = block.attn
        for head in range(model.cfg.n_heads):
            M, N = _gauge(model, generator), invertible(model.cfg.d_head, generator)
            for weight, by in (
                (attn.W_Q, M),
                (attn.b_Q, M),
                (attn.W_K, M.inverse().T),
                (attn.b_K, M.inverse().T),
                (attn.W_V, N),
                (attn.b_V, N),
            ):
                if weight is not None:
                    weight[head] = weight[head] @ by.to(weight)
            attn.W_O[head] = N.inverse().to(attn.W_O) @ attn.W_O[head]
    return changed


def _gauge(model: GPT, generator: torch.Generator) -> Float[Tensor, "d_head d_head"]:
    """A random invertible matrix that commutes with every turn of the model's positions."""
    if model.rotary is None:
        return invertible(model.cfg.d_head, generator)
    rotary, c = model.rotary, torch.rand(2, model.rotary.dim // 2, generator=generator).double()
    size, angle = 2 ** (2 * c[0] - 1), 2 * math.pi * c[1]  # a plane is turned and stretched
    planes = torch.eye(rotary.d_head, dtype=torch.float64)
    planes = rotary.turned(planes, size * angle.cos(), size * angle.sin())
    still = slice(rotary.dim, None)
    if rotary.dim < rotary.d_head:
        planes[still, still] = invertible(rotary.d_head - rotary.dim, generator)
    return planes


def orthogonal(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """A random matrix, uniform over all orthogonal matrices; float64."""
    matrix = torch.empty(size, size, dtype=torch.float64)
    return torch.nn.init.orthogonal_(matrix, generator=generator)


def invertible(size: int, generator: torch.Generator) -> Float[Tensor, "size size"]:
    """A random matrix with singular values between 1/2 and 2, safe to invert; float64."""
    stretch = 4 ** (torch.rand(size, generator=generator, dtype=torch.float64) - 0.5)
    return orthogonal(size, generator) * stretch @ orthogonal(size, generator)


def _copy(model: GPT, state: dict[str, Tensor], like: Tensor) -> GPT:
    model.to(like).eval().requires_grad_(False)
    model.load_state_dict(state)
    return model
