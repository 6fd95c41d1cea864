"""Untrained models as controls: a result that holds for them too is no effect of training."""

from dataclasses import replace

from circuits.model import GPT


def at_initialisation(model: GPT, seed: int | None = None) -> GPT:
    """The same architecture with untrained weights, drawn with `seed` or the config's seed."""
    cfg = model.cfg if seed is None else replace(model.cfg, seed=seed)
    control = GPT(cfg, model.tokenizer).to(model.W_E).eval()
    control.bos, control.trained_ctx = model.bos, model.trained_ctx
    return control
