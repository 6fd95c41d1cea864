"""The residual stream as the sum of its components, and the logits as a sum over components.

(Elhage et al. 2021, "The residual stream as a communication channel" and "The logits",
https://transformer-circuits.pub/2021/framework/index.html)

Components in stream order: embed, pos (unless shortformer), then for each layer its heads L0H0 ...,
its attention bias "L0 b_O", its MLP0 without bias, and "L0 b_out". A norm is applied to a component
with the frozen scale 1/sigma that the run has *at the place where it is read*, so it is linear. The
functions need the cache of a run_with_cache without filter.
"""

from typing import Literal, NamedTuple

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from circuits.decomposition.parts import Parts
from circuits.decomposition.stream import (
    check_layer,
    check_run,
    head_results,
    norm_bias,
    stream,
    through_norm,
    writes,
)
from circuits.hooks import Cache
from circuits.model import GPT

__all__ = ["LogitLens", "components", "head_results", "logit_attribution", "logit_lens",
           "neuron_results", "places", "stream", "streams", "through_norm"]  # fmt: skip

Token = int | str | Int[Tensor, "batch pos"]
"One token for all positions, by number or as text, or one token for each position."


def neuron_results(
    model: GPT, cache: Cache, layer: int, neurons: slice | list[int] = slice(None)
) -> Float[Tensor, "batch pos neuron d_model"]:
    """The output of each neuron of a layer, post W_out. The outputs sum to mlp_out less b_out.

    The outputs of all neurons have d_mlp times the size of the stream; `neurons` chooses some.
    ValueError for an attention-only model.
    """
    check_layer(model, layer, mid=True)
    W_out = model.W_out[layer, neurons]
    post = check_run(model, cache)["post", layer][..., neurons]
    return einsum(post, W_out, "batch pos neuron, neuron d -> batch pos neuron d")


def components(
    model: GPT,
    cache: Cache,
    layer: int | None = None,
    *,
    mid: bool = False,
    by: Literal["head", "layer"] = "head",
) -> Parts:
    """The terms of the stream before block `layer`, by default of the final stream, [component
    batch pos d_model]. With `mid`: the terms between the heads and the MLP of the block.

    By "head" the components are embed, pos, heads, MLPs and biases. By "layer" they are embed, pos,
    "L0 attn" (with its bias) and "L0 mlp". They sum to resid_pre, resid_mid or the last resid_post.
    """
    if by not in ("head", "layer"):
        raise ValueError(f"components are by 'head' or by 'layer', got {by!r}")
    place = check_layer(model, layer, mid)
    labels, stacks = zip(*writes(model, check_run(model, cache), place, mid, by), strict=True)
    names = [label for several in labels for label in several]
    return Parts(names, torch.cat(stacks), stream(model, cache, place, mid=mid))


def streams(
    model: GPT, cache: Cache, *, mid: bool = False
) -> Float[Tensor, "place batch pos d_model"]:
    """The stream before each block, and the final stream. With `mid` also after the heads of each
    block. `places` has the names of the places."""
    return torch.stack([stream(model, cache, at, mid=m) for at, m in _places(model, mid)])


def places(model: GPT, *, mid: bool = False) -> list[str]:
    """The names of the places of `streams` and `logit_lens`: "L0 pre", "L0 mid", ..., "final"."""
    last = model.cfg.n_layers
    return ["final" if layer == last else f"L{layer} {'mid' if m else 'pre'}"
            for layer, m in _places(model, mid)]  # fmt: skip


def logit_attribution(
    model: GPT,
    cache: Cache,
    token: Token | None = None,
    *,
    against: Token | None = None,
    direction: Float[Tensor, " d_model"] | None = None,
) -> Parts:
    """The share of each component in the logit of `token`, [component batch pos]. With `against` it
    is the share in the logit of `token` less the logit of `against`. With `direction` it is the
    share in the projection of the stream behind the final norm on this direction.

    The scale of the final norm is frozen. The norm's bias ("ln_final b") and "b_U" are components
    too. The shares sum to the logit, the difference or the projection.
    """
    u, constant = _direction(model, check_run(model, cache), token, against, direction)
    final = stream(model, cache)
    labels, terms = [], []
    for names, stack in writes(model, cache, model.cfg.n_layers):
        labels += names
        terms.append((through_norm(model, cache, stack) * u).sum(-1))
    shift = (norm_bias(model) * u).sum(-1)
    for name, value in (("ln_final b", shift), ("b_U", constant)):
        if value.ne(0).any():
            labels.append(name)
            terms.append(value.expand(1, *final.shape[:2]))
    whole = (model.ln_final(final) * u).sum(-1) + constant
    return Parts(labels, torch.cat(terms), whole)


class LogitLens(NamedTuple):
    """The predictions that the unembedding reads from the stream at each place (see `places`)."""

    places: list[str]
    kl: Float[Tensor, "place batch pos"]
    "KL(final || here) in nats, from the final prediction to the prediction here."
    top: Int[Tensor, "place batch pos"]
    "The likeliest token here."
    rank: Int[Tensor, "place batch pos"]
    "The number of tokens that are likelier here than the target."
    log_prob: Float[Tensor, "place batch pos"]
    "Log-probability of the target here, in nats."


def logit_lens(
    model: GPT, cache: Cache, targets: Int[Tensor, "batch pos"] | None = None, *, mid: bool = False
) -> LogitLens:
    """The logit lens: the stream at every place, read with the final norm and W_U as if it were the
    final stream. The norm computes its scale for each stream.

    `targets` are by default the tokens that the model finds likeliest. Under torch.no_grad() the
    logits of one place are in memory at a time, and the final logits. (nostalgebraist 2020,
    "interpreting GPT: the logit lens")
    """
    final = model.unembed(model.ln_final(stream(model, cache))).log_softmax(-1)
    ids = (
        final.argmax(-1) if targets is None else _ids(model, cache, targets).expand(final.shape[:2])
    )
    rows = []
    for layer, at_mid in _places(model, mid):
        here = model.unembed(model.ln_final(stream(model, cache, layer, mid=at_mid)))
        here = here.log_softmax(-1)
        chosen = here.gather(-1, ids[..., None])
        kl = (final.exp() * (final - here)).sum(-1)
        rows.append((kl, here.argmax(-1), (here > chosen).sum(-1), chosen.squeeze(-1)))
    return LogitLens(
        places(model, mid=mid), *(torch.stack(part) for part in zip(*rows, strict=True))
    )


def _places(model: GPT, mid: bool) -> list[tuple[int, bool]]:
    n, each = model.cfg.n_layers, (False, True) if mid else (False,)
    return [(layer, at_mid) for layer in range(n) for at_mid in each] + [(n, False)]


def _direction(
    model: GPT,
    cache: Cache,
    token: Token | None,
    against: Token | None,
    direction: Float[Tensor, " d_model"] | None,
) -> tuple[Float[Tensor, "*batch_pos d_model"], Float[Tensor, "*batch_pos"]]:
    """The direction that the stream behind the final norm is multiplied with, and the constant that
    is added."""
    if (token is None) == (direction is None) or (against is not None and token is None):
        raise ValueError("give a token, a token and another against it, or a direction")
    if direction is not None and direction.shape[-1] != model.cfg.d_model:
        raise ValueError(
            f"a direction is [d_model={model.cfg.d_model}], got {list(direction.shape)}"
        )
    if direction is not None:
        return direction, direction.new_zeros(())
    W_U, b_U = model.W_U, model.unembed.b_U
    b_U = W_U.new_zeros(W_U.shape[1]) if b_U is None else b_U
    ids = [_ids(model, cache, one) for one in (token, against) if one is not None]
    columns = [(W_U.T[one], b_U[one]) for one in ids]
    if len(columns) == 1:
        return columns[0]
    (u, b), (v, c) = columns
    return u - v, b - c


def _ids(model: GPT, cache: Cache, token: Token) -> Int[Tensor, "*batch_pos"]:
    ids = torch.as_tensor(model.to_single_token(token) if isinstance(token, str) else token)
    shape, d_vocab = cache["embed"].shape[:2], model.W_U.shape[1]
    if ids.shape not in ((), shape) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(
            f"wanted one token, or one for each of {list(shape)}, got {ids.dtype} {list(ids.shape)}"
        )
    if not ((ids >= 0) & (ids < d_vocab)).all():
        raise ValueError(f"wanted tokens from 0 to {d_vocab - 1}, got {ids.min()} to {ids.max()}")
    return ids.to(model.W_U.device)
