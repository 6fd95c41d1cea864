"""A small model and a short run of it, as the tests of training use them."""

import torch

from circuits import GPT, GPTConfig
from circuits.data import RepeatedTokens
from circuits.training import Recipe, Snapshots, train

SHAPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "d_head": 8, "d_vocab": 32, "n_ctx": 31}
RECIPE = Recipe(steps=26, batch_size=4, lr=3e-3, muon_lr=0.02, evaluate_every=7)
DATA = RepeatedTokens(32, shortest=4, longest=15)


def model(**fields):
    return GPT(GPTConfig(**{**SHAPE, **fields}))


def noticed(gpt):
    """An evaluation that draws from torch's own generator, as a careless one might."""
    return {"drawn": torch.rand(()).item(), "size": gpt.W_E.norm().item()}


def run(folder, gpt=None, recipe=RECIPE, data=DATA, every=5, weights_at=(), **options):
    gpt = gpt or model()
    snapshots = Snapshots(folder=folder / "snapshots", every=every, weights_at=weights_at)
    records = list(train(gpt, data, recipe, noticed, snapshots=snapshots, **options))
    return gpt, [{k: v for k, v in record.items() if k != "seconds"} for record in records]
