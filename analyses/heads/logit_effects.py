"""The effect of each head on the logit of the next token, by source.

(Elhage et al. 2021, the logit effect in the explorer of heads,
https://transformer-circuits.pub/2021/framework/index.html)
"""

import torch
from einops import einsum
from jaxtyping import Int
from torch import Tensor
from xarray import DataArray

from analyses.heads import attention
from analyses.labelled import per_head
from circuits import residual
from circuits.model import GPT, check_predicts, checked_tokens


def by_source(model: GPT, tokens: Int[Tensor, "*batch pos"]) -> DataArray:
    """The effect of each head on the logit of the true next token, minus its effect on the mean
    logit, by source: (layer, head, dest, src), in logits.

    It is pattern x value x output, with the final norm's scale frozen. The sum over `src` is the
    full effect at `dest`. The last destination has no next token: 0. Only the direct path counts,
    without effects through later layers. ValueError for several rows, or a model without layers.
    """
    check_predicts(model.cfg, "an effect on the next token")
    tokens = checked_tokens(tokens, model.cfg)
    if len(tokens) != 1 or model.cfg.n_layers == 0:
        raise ValueError(
            f"expected one row of tokens and a model with heads, got {list(tokens.shape)} and "
            f"{model.cfg.n_layers} layers"
        )

    def kept(name: str) -> bool:
        return attention.is_pattern_or_value(name) or name.startswith("ln_final")

    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=kept)
        following = model.W_U.mT[tokens[0, 1:]] - model.W_U.mean(-1)
    direction = torch.nn.functional.pad(following, (0, 0, 0, 1))[None]
    # With frozen scale the norm is linear: its transpose maps the direction to the stream.
    read = torch.autograd.functional.vjp(
        lambda stream: residual.through_norm(model, cache, stream), torch.zeros_like(direction),
        direction,
    )[1][0]  # fmt: skip
    found = []
    with torch.no_grad():
        for layer in range(model.cfg.n_layers):
            written = einsum(
                cache["v", layer][0], model.blocks[layer].attn.W_O,
                "src head d_head, head d_head d -> head src d",
            )  # fmt: skip
            brought = einsum(written, read, "head src d, dest d -> head dest src")
            found.append(cache["pattern", layer][0] * brought)
    values = torch.stack(found).float()
    high = float(values.abs().max())
    words = "added to the logit of the next token, over the mean logit"
    attrs = {"long_name": words, "units": "logits", "bounds": (-high, high)}
    return per_head(values, "logit_effects", "dest", "src", **attrs)
