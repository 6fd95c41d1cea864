"""The next-token loss: at each position, and its mean without pads."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.matrices import at_least_single
from circuits.model.config import GPTConfig, check_predicts


def token_loss(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"] | None
) -> Float[Tensor, "batch pos-1"]:
    """The next-token loss in nats at each position but the last: -log softmax(logits)[next]."""
    if tokens is None or tokens.shape[1] < 2:
        raise ValueError("the loss needs at least two tokens, and no residual stream as input")
    log_probs = at_least_single(logits[:, :-1]).log_softmax(-1)
    return -log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)


def mean_loss(
    loss: Float[Tensor, "batch next"], real: Bool[Tensor, "batch src"] | None, per_token: bool
) -> Float[Tensor, "*batch_pos"]:
    """The mean loss over tokens that follow a token; with `per_token` each loss, and 0 at pads."""
    if real is None:
        return loss if per_token else loss.mean()
    real = real[:, -loss.shape[1] - 1 :]
    both = real[:, :-1] & real[:, 1:]
    if not both.any():
        raise ValueError("attention_mask leaves no token that follows a token: there is no loss")
    loss = loss.where(both, 0)
    return loss if per_token else loss.sum() / both.sum()


def check_return(
    cfg: GPTConfig, return_type: str | None, per_token: bool, stop_at_layer: int | None
) -> None:
    """ValueError unless a run can return `return_type`: logits, loss, both or None."""
    if return_type not in ("logits", "loss", "both", None):
        raise ValueError(f"return_type={return_type!r}; choose logits, loss, both or None")
    wants_loss = return_type in ("loss", "both")
    if (wants_loss and stop_at_layer is not None) or (per_token and not wants_loss):
        raise ValueError("a loss needs return_type='loss' or 'both', and no stop_at_layer")
    if wants_loss:
        check_predicts(cfg, "the next-token loss")
