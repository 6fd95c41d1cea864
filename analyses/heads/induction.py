"""Induction: A B ... A -> B, on repeated random tokens.

`stripe` and `attention.prefix_matching` measure where a head attends, `copying` which logits it
raises, `qk_trace` its weights, and `loss_by_position` the loss of the model. Each but `qk_trace`
takes tokens, for example from `prompts`, and has a default prompt. The coordinates `low` and `high`
of a score are the ends of its 95% interval over prompts. (Olsson et al. 2022,
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads/index.html)
"""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from xarray import DataArray

from analyses import losses, prompts
from analyses.heads.attention import attention_on, is_pattern_or_value, previous_token
from analyses.heads.masks import Tokens, to_offset
from analyses.labelled import Model, Weighted, mean_per_head, per_head, to_numpy, tokens_of
from circuits.decomposition import K_composed_QK, unembedding
from circuits.matrices import at_least_single
from circuits.model import GPT, Ids, check_predicts


def stripe(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The mean of the pattern's diagonal n - 1 back, on BOS + R + R with n distinct tokens in R,
    (layer, head), in [0, 1]: the induction score of TransformerLens's demos and of ARENA. The
    default n is 50, or less if the context or the vocabulary is too small.

    The diagonal has n + 2 entries. In two of them nothing matches; the source of the first is BOS.
    attrs["perfect"] is the score of a head that always attends to the match, and to BOS without a
    match: (n + 1) / (n + 2). `prefix_matching` leaves such entries out. ValueError for tokens of
    another form, and for fewer than 2 in R.
    """
    tokens = prompts.tokens_or(model, tokens, _said_twice)
    n = prompts.length_of_repeat(tokens)
    if n < 2 or (tokens[:, 1 : n + 1].sort().values.diff() == 0).any():
        raise ValueError(f"the stripe needs 2 or more distinct tokens that are repeated, got {n} "
                         f"of the {model.cfg.d_vocab - 1} beside BOS")  # fmt: skip
    mask = to_offset(tokens, n - 1)
    score = attention_on(model, tokens, mask, "stripe", f"attention {n - 1} tokens back")
    return score.assign_attrs(perfect=(n + 1) / (n + 2))


def _said_twice(model: Model) -> Tokens:
    return prompts.repeated(model, min(50, (prompts.reach(model) - 1) // 2, model.cfg.d_vocab - 1))


def _said_once(model: Model) -> Tokens:
    """The prompt of Olsson et al.'s copying score: BOS and 25 random tokens, or as many as fit."""
    return prompts.random_tokens(model, min(25, prompts.reach(model) - 1), batch=10)


def copying(
    model: Weighted,
    tokens: Ids | str | None = None,
    *,
    cipher: Int[Tensor, " d_vocab"] | None = None,
) -> DataArray:
    """The share of a head's raised logits that falls on the attended token, (layer, head), in
    [0, 1].

    Each source's value goes through W_O and W_U. The mean logit is subtracted, and negative logits
    become 0. The share is the logit of the source's own token, divided by the sum over the tokens
    of the row. The score is the mean share, weighted by attention, without position 0.
    attrs["chance"] is the share if all logits are raised alike. The default prompt is BOS and 25
    random tokens. NaN for a head that attends only to BOS, as an ideal induction head does if no
    token repeats. With a `cipher` the logits are those of cipher[t] for each token t of the row.
    (Olsson et al. 2022 scale a score of this kind to -1 ... 1.)
    """
    check_predicts(model.cfg, "copying")
    tokens = prompts.tokens_or(model, tokens, _said_once)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=is_pattern_or_value)
        said = tokens if cipher is None else cipher[tokens]
        W_U = _centred_unembedding(model, said[:, 1:])
        same = tokens[:, 1:, None] == tokens[:, None, 1:]  # batch src out
        found, rounding = [], 1e3 * torch.finfo(W_U.dtype).eps
        for layer, W_O in enumerate(at_least_single(model.W_O)):
            pattern, v = (at_least_single(cache[what, layer]) for what in ("pattern", "v"))
            pattern, v = pattern[:, :, 1:, 1:], v[:, 1:]
            raised = torch.einsum("bshe,hed,bod->bhso", v, W_O, W_U).relu()
            total = raised.sum(-1)
            own = (raised * same[:, None]).sum(-1) / total.clamp(min=1e-30)
            size = torch.einsum("bsh,h->bhs", v.norm(dim=-1), W_O.norm(dim=(-2, -1)))
            own = own.where(total > rounding * size * W_U.norm(dim=-1).max(), 0.0)
            attended, whole = (pattern * own[:, :, None]).sum((2, 3)), pattern.sum((2, 3))
            seen = whole > torch.finfo(whole.dtype).tiny  # below it, attention is rounding
            found.append(torch.stack([attended, whole]).where(seen, 0))
    words = "raise of the attended token, of all in the sample"
    return _of_sample(found, model, tokens, "copying", words, same)


def output_copying(model: Weighted, tokens: Ids | str | None = None) -> DataArray:
    """The share of the head's raised logits, by its whole output, that falls on the attended
    tokens, (layer, head), in [0, 1]: Olsson et al.'s copying score by their definition, not scaled.

    A destination's z goes through W_O and W_U. The mean logit is subtracted, and negative logits
    become 0. The share of the attended token in the tokens of the row is averaged by attention. The
    default prompt is 25 random tokens without BOS. A copying head that attends to m tokens at once
    has only 1 / m here, but 1 in `copying`. Olsson et al. give the range 0 to 0.5 and scale it to
    -1 ... 1 (4 x - 1). By their definition a copying head that attends to one token has 1.
    """
    check_predicts(model.cfg, "copying")
    tokens = _said_once(model)[:, 1:] if tokens is None else tokens_of(model, tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=_pattern_or_z)
        W_U = _centred_unembedding(model, tokens)
        same = tokens[:, :, None] == tokens[:, None, :]  # batch src out
        found, rounding = [], 1e3 * torch.finfo(W_U.dtype).eps
        for layer, W_O in enumerate(at_least_single(model.W_O)):
            pattern, z = (at_least_single(cache[what, layer]) for what in ("pattern", "z"))
            raised = torch.einsum("bihe,hed,bod->bhio", z, W_O, W_U).relu()
            total = raised.sum(-1, keepdim=True)
            own = raised @ same.mT[:, None].to(raised.dtype)  # batch head dest src
            share = own / total.clamp(min=1e-30)
            size = torch.einsum("bih,h->bhi", z.norm(dim=-1), W_O.norm(dim=(-2, -1)))[..., None]
            share = share.where(total > rounding * size * W_U.norm(dim=-1).max(), 0.0)
            attended = (pattern * share).sum((2, 3))
            found.append(torch.stack([attended, torch.full_like(attended, tokens.shape[1])]))
    words = "raise of the attended tokens by the output, of all in the sample"
    return _of_sample(found, model, tokens, "output_copying", words, same)


def _centred_unembedding(model: Weighted, tokens: Tensor) -> Float[Tensor, "batch out d_model"]:
    """The columns of W_U for these tokens, with the gain and the centring of the final norm folded
    in, minus the mean over the vocabulary."""
    if isinstance(model, GPT):
        W_U = at_least_single(unembedding(model))
    else:
        gain = getattr(model.ln_final, "w", None)
        W_U = at_least_single(model.W_U if gain is None else gain[:, None] * model.W_U)
        if str(model.cfg.normalization_type).startswith("LN"):
            W_U = W_U - W_U.mean(0)
    return (W_U - W_U.mean(-1, keepdim=True)).T[tokens]


def _of_sample(
    found: list[Tensor], model: Model, tokens: Tensor, name: str, words: str, same: Tensor
) -> DataArray:
    """The score from sums and counts, [2 batch head] for each layer."""
    empty = torch.empty(2, len(tokens), 0, model.cfg.n_heads)
    sums, counts = torch.stack(found, 2) if found else empty
    chance = same.float().mean().item()
    attrs = {"chance": chance, "bounds": (0.0, 1.0), **prompts.described(model, tokens)}
    return mean_per_head(sums, counts, name, long_name=words, **attrs)


def _pattern_or_z(name: str) -> bool:
    return name.endswith(("attn.hook_pattern", "attn.hook_z"))


def qk_trace(model: GPT) -> DataArray:
    """The trace of W_E W_QK (W_E W_OV)^T, summed over the heads of earlier layers with their
    previous-token score as weight, (layer, head), in units of scores; 0 in layer 0.

    Olsson et al.'s "trace of QK eigenvalues": large for a head that attends where the token moved
    by previous-token heads is its own token. attrs["chance"] is 0, the mean of random matrices.
    """
    weights = torch.from_numpy(previous_token(model).values)
    traces = weights.new_zeros(weights.shape)
    with torch.no_grad():
        for reader in range(model.cfg.n_layers):
            for writer in range(reader):
                composed = K_composed_QK(model, reader, writer).trace()  # reader writer
                traces[reader] += (composed * weights[writer]).sum(-1)
    words = "trace of the QK circuit composed with previous-token heads"
    return per_head(traces, "qk_trace", long_name=words, chance=0.0)


def loss_by_position(model: Model, tokens: Ids | str | None = None) -> DataArray:
    """The loss in nats of each token of BOS + R + R after BOS, (example, pos); see
    `prompts.repeated`.

    attrs["repeat"] is the first position that induction can predict, the second token of the second
    R. ValueError for tokens of another form.
    """
    tokens = prompts.tokens_or(model, tokens, partial(prompts.repeated, batch=32))
    return DataArray(
        to_numpy(losses.of_tokens(model, tokens)),
        dims=("example", "pos"),
        coords={"pos": range(1, tokens.shape[1])},
        name="loss",
        attrs={
            "units": "nats",
            "long_name": "loss",
            "repeat": prompts.length_of_repeat(tokens) + 2,
        },
    )


def repeat_gain(model: Model, tokens: Ids | str | None = None) -> float:
    """The mean loss before attrs["repeat"] of `loss_by_position` minus the mean loss from there on,
    in nats: 0 for a model that gains nothing from the repeat."""
    loss = loss_by_position(model, tokens).mean("example")
    second = loss.pos >= loss.attrs["repeat"]
    return float(loss[~second].mean() - loss[second].mean())
