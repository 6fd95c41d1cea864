"""Models that learned nothing: what an analysis finds in them too is no finding."""

from dataclasses import replace

from circuits.model import GPT


def at_initialisation(model: GPT, seed: int | None = None) -> GPT:
    """The same architecture before training, from the config's own seed or another."""
    cfg = model.cfg if seed is None else replace(model.cfg, seed=seed)
    control = GPT(cfg, model.tokenizer).to(model.W_E).eval()
    control.bos, control.trained_ctx = model.bos, model.trained_ctx
    return control
