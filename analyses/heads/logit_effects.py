"""What each head adds to the logit of the next token, by the token that it came from.

(Elhage et al. 2021, the logit effect of the explorer of heads,
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
    """What each head adds to the logit of the token that really follows, less what it adds to the
    mean logit, by the source that it came from: (layer, head, dest, src), in logits.

    Pattern x value x output, the final norm's scale frozen. The sum over `src` is what the head
    does at `dest`; the last destination, which nothing follows, is 0. Only the direct path: what
    later layers make of it is not in it. ValueError unless there is one row of tokens and a head.
    """
    check_predicts(model.cfg, "an effect on the next token")
    tokens = checked_tokens(tokens, model.cfg)
    if len(tokens) != 1 or model.cfg.n_layers == 0:
        raise ValueError(
            f"wanted one row of tokens and a model with heads, got {list(tokens.shape)} and "
            f"{model.cfg.n_layers} layers"
        )

    def kept(name: str) -> bool:
        return attention.is_pattern_or_value(name) or name.startswith("ln_final")

    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=kept)
        following = model.W_U.mT[tokens[0, 1:]] - model.W_U.mean(-1)
    direction = torch.nn.functional.pad(following, (0, 0, 0, 1))[None]
    # With its scale frozen the norm is linear: its transpose brings the direction to the stream.
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
