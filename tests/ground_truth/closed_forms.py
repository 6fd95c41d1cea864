"""Sizes to draw, and scores and losses of runs, to hold against closed forms."""

import torch
from hypothesis import Phase, settings
from hypothesis import strategies as st

from analyses import prompts
from circuits import GPT, composition

EXACT = {"abs": 1e-6, "rel": 0}
few = settings(max_examples=4, deadline=None, phases=[Phase.generate])  # small as they come
sizes = st.fixed_dictionaries(
    {
        "d_vocab": st.integers(4, 24),
        "n_ctx": st.integers(50, 60),
        "gain": st.floats(0.5, 15.0),
        "rest": st.floats(0.25, 0.75),
    }
)
"Arguments of an induction circuit; the vocabulary said twice fits into the context."


def compositions(model: GPT, writer: int = 0, reader: int = 0) -> dict[str, float]:
    """By Q, K and V, of a head of layer 1 with a head of layer 0."""
    q, k, v = composition.scores(model)[:, 0, writer, 1, reader].tolist()
    return {"q": q, "k": k, "v": v}


def said_twice(model: GPT) -> torch.Tensor:
    """BOS + R + R with every token of the vocabulary in R."""
    return prompts.repeated(model, model.cfg.d_vocab - 1, batch=3)


def losses(model: GPT, tokens: torch.Tensor, hooks=()) -> torch.Tensor:
    return model.run_with_hooks(tokens, "loss", loss_per_token=True, fwd_hooks=list(hooks))


def second_half(loss: torch.Tensor) -> torch.Tensor:
    """Of BOS + R + R, what the first R predicts: all but the first token of the second."""
    return loss[:, loss.shape[1] // 2 + 1 :]


def kept(model: GPT, tokens: torch.Tensor) -> list:
    """Hooks that force the patterns of the untouched run."""
    _, clean = model.run_with_cache(tokens)
    return [("*.hook_pattern", lambda pattern, hook: clean[hook.name])]


def logits_by_order(model: GPT, tokens: torch.Tensor, orders: int = 3) -> list[torch.Tensor]:
    """Logits of all paths through at most 0, 1, ... heads (Elhage et al. 2021): patterns are
    frozen, and every head writes what it would have written in the run before; first nothing."""
    frozen, written, logits = kept(model, tokens), {}, []
    for _ in range(orders):
        now = {}

        def write(out, hook, now=now, written=written):
            now[hook.name] = out.clone()
            return written.get(hook.name, torch.zeros_like(out))

        hooks = [*frozen, ("*.hook_attn_out", write)]
        logits.append(model.run_with_hooks(tokens, fwd_hooks=hooks))
        written = now
    return logits


def losses_by_order(model: GPT, tokens: torch.Tensor) -> list[float]:
    log_probs = [logits.log_softmax(-1) for logits in logits_by_order(model, tokens)]
    index = tokens[:, 1:, None]
    return [
        second_half(-of[:, :-1].gather(-1, index).squeeze(-1)).mean().item() for of in log_probs
    ]
