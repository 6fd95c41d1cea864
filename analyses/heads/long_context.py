"""Attention scores for contexts whose pattern, [head dest src], does not fit into memory.

A pattern of 12 heads over 32,768 tokens takes 48 GiB. `long_context.behaviours(model, tokens)`
needs a few hundred MiB.

1. Run the model with fused attention, and keep q and k of a layer, [batch pos head d_head].
2. For a block of destinations compute the scores q . k / scale, and the log-sum-exp of each row.
3. Compute only the entries in the masks: A_ij = exp(score_ij - logsumexp_i).

A block has at most `block_bytes`. Memory grows linearly with the context, time with its square. The
scores equal the scores of `attention` and `patterns`.
"""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from xarray import DataArray

from analyses import prompts
from analyses.heads.masks import BEHAVIOURS, Mask, Tokens, counted_destinations, uniform_attention
from analyses.labelled import Model, mean_per_head, to_numpy, tokens_of
from circuits.matrices import at_least_single
from circuits.model import Ids, check_causal

BLOCK = 2**26
"The bytes of one block of scores, 64 MiB; their exponentials take the same again."
KINDS = ("standard", "sinusoidal", "shortformer", "shortformer_sinusoidal", "rotary", "none")
"The positional_embedding_types with which a score is q . k / scale, for rotary of the turned q, k."


def behaviours(
    model: Model,
    tokens: Ids | str,
    *,
    masks: Mapping[str, Callable[..., Mask]] | None = None,
    block_bytes: int = BLOCK,
) -> DataArray:
    """The mean attention on each mask, (layer, head, behaviour), in [0, 1], with `low` and `high`.

    `masks` are functions of tokens and `dests`, by default the masks of masks.BEHAVIOURS. The
    scores equal `attention.attention_on`. `chance` (behaviour) is the score of uniform attention.
    NaN for a mask without entries in these tokens. ValueError for a model whose scores are not
    q . k / scale.
    """
    masks = {name: rule.mask for name, rule in BEHAVIOURS.items()} if masks is None else masks
    tokens = tokens_of(model, tokens)
    sums = torch.zeros(len(masks), len(tokens), model.cfg.n_layers, model.cfg.n_heads).double()
    counts = torch.zeros(len(masks), len(tokens), dtype=torch.float64)
    expected = torch.zeros_like(counts)
    for layer in range(model.cfg.n_layers):
        q, k = queries_and_keys(model, tokens, layer)
        for dests, scores in score_blocks(q, k, block_bytes):
            total = scores.logsumexp(-1)
            for which, of in enumerate(masks.values()):
                mask = of(tokens, dests=dests)
                rows = counted_destinations(mask, dests.start)
                entries = (mask & rows[..., None])[..., : dests.stop]
                sums[which, :, layer] += _sums(scores, total, entries).cpu()
                if layer == 0:
                    counts[which] += rows.sum(-1).cpu()
                    expected[which] += uniform_attention(mask, rows, dests.start).cpu()
    found = mean_per_head(
        sums.movedim(0, -1),
        counts.T[:, None, None],
        "behaviours",
        "behaviour",
        long_name="mean attention",
        bounds=(0.0, 1.0),
        **prompts.described(model, tokens),
    )
    chance = expected.sum(-1) / counts.sum(-1)
    return found.assign_coords(behaviour=list(masks), chance=("behaviour", to_numpy(chance)))


def entropy(model: Model, tokens: Ids | str, *, block_bytes: int = BLOCK) -> DataArray:
    """The mean entropy of a destination's attention, (layer, head), in nats: `patterns.entropy`.

    The entropy of a row with scores s is logsumexp(s) - sum(A s).
    """
    tokens = tokens_of(model, tokens)
    n = tokens.shape[1]
    sums = torch.zeros(len(tokens), model.cfg.n_layers, model.cfg.n_heads).double()
    for layer in range(model.cfg.n_layers):
        q, k = queries_and_keys(model, tokens, layer)
        for dests, scores in score_blocks(q, k, block_bytes):
            total = scores.logsumexp(-1, keepdim=True)
            mean = (scores.clamp(min=-1e30) * (scores - total).exp()).sum(-1)
            each = total[..., 0] - mean
            sums[:, layer] += each[..., 1 if dests.start == 0 else 0 :].sum(-1).cpu()
    most = torch.arange(2, n + 1, dtype=torch.float64).log().mean().item()
    return mean_per_head(
        sums,
        torch.full((len(tokens), 1, 1), n - 1),
        "entropy",
        long_name="entropy of attention",
        units="nats",
        bounds=(0.0, most),
        chance=most,
        **prompts.described(model, tokens),
    )


def queries_and_keys(
    model: Model, tokens: Tokens, layer: int
) -> tuple[Float[Tensor, "batch pos head d_head"], Float[Tensor, "batch pos head d_head"]]:
    """q / scale and k of one layer; ValueError if the model's scores are not their product."""
    check_causal(model.cfg, "a long context")
    kind = getattr(model.cfg, "positional_embedding_type", "none")
    if kind not in KINDS:
        raise ValueError(f"with {kind} positions a score is not q . k / scale: expected {KINDS}")
    turned = "rot_" if kind == "rotary" else ""
    names = [f"blocks.{layer}.attn.hook_{turned}{what}" for what in "qk"]
    if turned and not set(names) <= set(getattr(model, "hook_dict", names)):
        raise ValueError(f"the model has no {names[0]}: convert it with from_transformer_lens")
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, return_type=None, names_filter=names)
    q, k = (at_least_single(cache[name].to(tokens.device)) for name in names)
    if q.shape != k.shape:
        raise ValueError(f"expected a key for every query, got {list(q.shape)}, {list(k.shape)}")
    given = getattr(model.cfg, "attn_scale", None)  # TransformerLens has -1 for sqrt(d_head)
    return q / (given if given and given > 0 else math.sqrt(model.cfg.d_head)), k


def score_blocks(
    q: Float[Tensor, "batch pos head d_head"],
    k: Float[Tensor, "batch pos head d_head"],
    block_bytes: int = BLOCK,
) -> Iterator[tuple[slice, Float[Tensor, "batch head dest src"]]]:
    """Blocks of destinations, each with its scores for all sources up to the block's end; -inf if a
    source comes after its destination. A block has at least one destination."""
    batch, n, heads, _ = q.shape
    rows = max(1, block_bytes // (batch * heads * n * q.element_size()))
    for start in range(0, n, rows):
        stop = min(start + rows, n)
        scores = q[:, start:stop].transpose(1, 2) @ k[:, :stop].transpose(1, 2).mT
        future = torch.ones(stop - start, stop, dtype=torch.bool, device=q.device).triu(1 + start)
        yield slice(start, stop), scores.masked_fill_(future, -math.inf)


def _sums(
    scores: Float[Tensor, "batch head dest src"],
    total: Float[Tensor, "batch head dest"],
    mask: Mask,
) -> Float[Tensor, "batch head"]:
    """The attention on the entries of a mask, summed for each row of tokens."""
    example, dest, src = mask.nonzero().T
    entries = (scores[example, :, dest, src] - total[example, :, dest]).exp()  # entry head
    return scores.new_zeros(scores.shape[:2]).index_add_(0, example, entries)
